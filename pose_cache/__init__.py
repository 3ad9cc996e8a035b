"""Skeletons: joint sets, the HDF5 cache, MMPose estimators and extraction. Knows nothing of re-identification."""
