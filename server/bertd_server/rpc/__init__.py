"""The gRPC services. Protobuf messages stop here: nothing below this layer sees one."""
