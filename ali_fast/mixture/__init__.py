"""The 2-D experiment of the paper's section 4.5: 25 Gaussians on a grid, many small models trained as one program."""
