"""Signs of reward hacking that need no judge, and the alarms on them."""
