"""Messages and stubs of the ``bertd.v1`` API, generated from the .proto files beside them."""
