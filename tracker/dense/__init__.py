"""What an embedding network says about each frame: crops, maps, and places on the head's surface that they speak of."""
