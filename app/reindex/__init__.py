"""How the model that answers is changed: crops are embedded with the next one beside, then that one answers."""
