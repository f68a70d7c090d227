"""An agent that trades: feeds of bars, brokers, the ledger of orders and the loop that keeps it."""
