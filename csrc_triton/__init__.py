"""Triton kernels for adversarially learned inference, one op per module; needs torch and triton only."""
