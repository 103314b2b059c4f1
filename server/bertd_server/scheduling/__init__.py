"""Which requests are computed when, and who is told.

::

    scheduler      calls come in; each of their texts leaves with its completion
      admission      can the call be answered in time? a promise, or a refusal at once
      deduplication  equal requests in flight are one, with several waiters
      cache          outputs of earlier requests
    request_queue  WHICH: what waits, in order, and how much work it is
      batching       the next batch and where it runs; pure
      cost, classes, forecast   what a batch takes, here and now
    dispatcher     WHEN: a lane that is free takes the best batch that exists
      pool, lanes    lanes that models share by weight; threads that run batches
    executor       what follows a batch: one thread, which calls share in slices
    memory_budget  bytes that requests in flight may take, before they take them
    completion     every waiter is told, once; failures are counted, results cached
    statistics     what happened, as plain numbers

All of it but what threads compute belongs to the event loop: no locks.
"""
