//! DeepMimic motion JSON (as in the PyPI package pybullet): root position and joint rotations, turned into joint positions.
