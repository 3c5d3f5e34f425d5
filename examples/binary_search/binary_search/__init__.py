"""Binary search learnt from scratch: which credit needs how many episodes. Leyden's credit and trainer, no Kafka."""
