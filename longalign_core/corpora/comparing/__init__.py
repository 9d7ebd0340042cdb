"""Documents compared with one another and with protected texts."""
