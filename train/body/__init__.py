"""Makes the body that `glnet_rt` ships: MakeHuman's CC0 data in, an SMPL-format `body.npz` out.

Letters used in shapes across the package: N MakeHuman vertices (19,158, helper geometry
included), V vertices kept, S sampled people, T targets, J = 24 SMPL joints.

Everything is in metres, y up, facing +z, the body's left at +x, unless said otherwise.
"""
