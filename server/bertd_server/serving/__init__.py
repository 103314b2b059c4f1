"""A server put together: models, services, addresses, what guards and what observes it."""
