"""CSIP-ReID: video person re-identification pretrained on 3D skeletons."""
