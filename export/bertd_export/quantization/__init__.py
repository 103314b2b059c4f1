"""From the packed fp32 graph to int8 and fp16 ones that are good enough."""
