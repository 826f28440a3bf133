"""Pictures and video frames: decode, check, standardise, tiles. Pixels are touched here before they meet a model."""
