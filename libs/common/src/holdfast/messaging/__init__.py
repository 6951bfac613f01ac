"""The wire between the services: versioned contracts, the doorbell, and the live window in Redis."""
