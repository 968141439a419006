"""Domain types: grids, images, anatomy, transforms, legs, results and errors. No I/O."""
