"""The half of each student family's adapter that needs no torch: text, images and videos as a student takes them."""
