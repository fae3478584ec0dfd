"""What every recipe shares: processes, folder, policy, optimiser, data, ledger and checkpoints."""
