"""TODO judges.questioners."""
