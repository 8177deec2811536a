//! NW-UCLA clips as JSON: `{"file_name": …, "skeletons": [[[x, y, z] × 20] …]}`.
