"""The U-Net, its padding on the sphere, its weights and its memory."""
