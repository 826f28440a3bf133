"""The small world's towers: trained here, on drawings, from random weights."""
