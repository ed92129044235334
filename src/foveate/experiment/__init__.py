"""What train, val, predict, plan and study share: options, arms, a host with its attention, run folders."""
