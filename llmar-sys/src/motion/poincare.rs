//! Maths of the Poincaré ball of curvature −c, radius 1/√c (Ganea et al. 2018; Ungar 2008), in f32 and f64.
