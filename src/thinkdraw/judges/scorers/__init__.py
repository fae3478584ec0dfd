"""Judges that give a picture one number: CLIP and its kin, HPS, ImageReward, aesthetics."""
