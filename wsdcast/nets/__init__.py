"""The U-Net, on the sphere or the plane, its memory and its weights."""
