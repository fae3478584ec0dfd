"""Judges that give a picture one number: CLIP, SigLIP, HPS, ImageReward, beauty."""
