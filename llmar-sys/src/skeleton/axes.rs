//! Coordinate systems: a caller's axes and unit become the library's.
//!
//! In 3D the library's frame is right-handed, y up, in metres, as Kinect sensors and OpenXR have it. In 2D it is the image's, x right and y down,
//! in pixels, as data sets have it. A frame of either handedness describes the same body, so its left stays its left.

use crate::error::{Error, Result};

/// Axis that points up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Up {
    /// As the library has it: +y in 3D, −y in 2D.
    #[default]
    Usual,
    /// +x; 3D only.
    PlusX,
    /// −x; 3D only.
    MinusX,
    /// +y.
    PlusY,
    /// −y: images, and cameras that look along +z.
    MinusY,
    /// +z; 3D only.
    PlusZ,
    /// −z; 3D only.
    MinusZ,
}

/// The hand whose thumb, index and middle finger can point along +x, +y and +z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handedness {
    /// As the library has it.
    #[default]
    Right,
    /// Mirrored on conversion. Means nothing in 2D.
    Left,
}

/// A caller's coordinate system. The default is the library's: nothing is changed.
///
/// | frame | x | y | z | becomes |
/// |---|---|---|---|---|
/// | [`Axes::OPENXR`], Godot: right-handed, metres | right | up | back | (x, y, z) |
/// | [`Axes::UNITY`]: left-handed, metres | right | up | forward | (x, y, −z) |
/// | [`Axes::UNREAL`]: left-handed, centimetres | forward | right | up | (y, z, −x) / 100 |
/// | [`Axes::ROS`], REP-103: right-handed, metres | forward | left | up | (y, z, x) |
/// | [`Axes::AZURE_KINECT`], and OpenCV in other units: right-handed, millimetres | right | down | forward | (−x, −y, z) / 1000 |
///
/// A turn about the vertical is free, and models whose heading is `hips_to_x` do not see it. It is chosen so that a body has its left at −x and
/// faces −z, as in the clips of Kinect sensors, where it faces a camera that looks along its forward axis (ROS, Azure Kinect), or looks forward
/// itself (OpenXR, Unity, Unreal).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axes {
    /// Axis that points up.
    pub up: Up,
    /// Handedness of the frame.
    pub handedness: Handedness,
    /// Metres a unit, finite and above zero: 0.01 for centimetres. In 2D pixels a unit, 1 for pixels.
    pub metres_per_unit: f32,
}

impl Default for Axes {
    fn default() -> Self {
        Self { up: Up::Usual, handedness: Handedness::Right, metres_per_unit: 1.0 }
    }
}

impl Axes {
    /// OpenXR and Godot.
    pub const OPENXR: Self = Self { up: Up::PlusY, handedness: Handedness::Right, metres_per_unit: 1.0 };
    /// Unity.
    pub const UNITY: Self = Self { up: Up::PlusY, handedness: Handedness::Left, metres_per_unit: 1.0 };
    /// Unreal Engine.
    pub const UNREAL: Self = Self { up: Up::PlusZ, handedness: Handedness::Left, metres_per_unit: 0.01 };
    /// ROS, REP-103. Its optical frames are those of [`Axes::AZURE_KINECT`] in metres.
    pub const ROS: Self = Self { up: Up::PlusZ, handedness: Handedness::Right, metres_per_unit: 1.0 };
    /// Camera frame of Azure Kinect.
    pub const AZURE_KINECT: Self = Self { up: Up::MinusY, handedness: Handedness::Right, metres_per_unit: 0.001 };

    /// The frames above by name, as command lines take them, and OpenCV's in metres.
    pub const NAMED: [(&str, Self); 6] = [
        ("openxr", Self::OPENXR),
        ("unity", Self::UNITY),
        ("unreal", Self::UNREAL),
        ("ros", Self::ROS),
        ("azure_kinect", Self::AZURE_KINECT),
        ("opencv", Self { metres_per_unit: 1.0, ..Self::AZURE_KINECT }),
    ];

    /// The unit is usable.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a unit that is not finite or not above zero.
    pub fn check(&self) -> Result<()> {
        match self.metres_per_unit.is_finite() && self.metres_per_unit > 0.0 {
            true => Ok(()),
            false => Err(Error::argument("metres per unit", "a finite number above zero", self.metres_per_unit)),
        }
    }

    /// The way from these axes to the library's, for joints of `coords` coordinates (2 or 3). The default's changes nothing, bit for bit.
    ///
    /// # Errors
    /// Those of [`Axes::check`]; [`Error::InvalidArgument`] for other `coords`, and in 2D for an up that is not along y.
    pub fn conversion(&self, coords: usize) -> Result<Conversion> {
        self.check()?;
        let (source, sign) = match coords {
            2 => self.planar()?,
            3 => self.spatial(),
            other => return Err(Error::argument("coords", "2 or 3", other)),
        };
        Ok(Conversion { coords, source, factor: sign.map(|sign| sign * self.metres_per_unit) })
    }

    /// Axis that each of x, y, z is taken from, and its sign, in 3D.
    fn spatial(&self) -> ([usize; 3], [f32; 3]) {
        // Turns, by which up becomes +y. Where up lies in the picture of a camera that looks along z, z stays; else x, forward, becomes z.
        let (source, mut sign) = match self.up {
            Up::Usual | Up::PlusY => ([0, 1, 2], [1.0, 1.0, 1.0]),
            Up::MinusY => ([0, 1, 2], [-1.0, -1.0, 1.0]),
            Up::PlusX => ([1, 0, 2], [-1.0, 1.0, 1.0]),
            Up::MinusX => ([1, 0, 2], [1.0, -1.0, 1.0]),
            Up::PlusZ => ([1, 2, 0], [1.0, 1.0, 1.0]),
            Up::MinusZ => ([1, 2, 0], [-1.0, -1.0, 1.0]),
        };
        // A left-handed frame is mirrored along the axis that is neither up nor from left to right.
        if self.handedness == Handedness::Left {
            sign[2] = -sign[2];
        }
        (source, sign)
    }

    /// The same for x and y in 2D, where up is −y.
    fn planar(&self) -> Result<([usize; 3], [f32; 3])> {
        match self.up {
            Up::Usual | Up::MinusY => Ok(([0, 1, 2], [1.0, 1.0, 1.0])),
            Up::PlusY => Ok(([0, 1, 2], [1.0, -1.0, 1.0])),
            up => Err(Error::argument("up", "an axis along y for 2 coordinates", format!("{up:?}"))),
        }
    }
}

/// A way from a caller's axes to the library's: an order of axes, signs, and a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversion {
    coords: usize,
    /// For each axis of the library the caller's axis.
    source: [usize; 3],
    /// Sign times unit.
    factor: [f32; 3],
}

impl Conversion {
    /// 2 or 3.
    pub fn coords(&self) -> usize {
        self.coords
    }

    /// Whether [`Conversion::convert`] changes nothing.
    pub fn is_identity(&self) -> bool {
        self.source == [0, 1, 2] && self.factor[..self.coords].iter().all(|factor| *factor == 1.0)
    }

    /// Converts `joints` [n, coords] in place; values behind the last whole joint stay. A joint with a value that is not finite keeps one, so it stays
    /// invalid, and so does one that leaves f32. Allocates nothing.
    pub fn convert(&self, joints: &mut [f32]) {
        if self.is_identity() {
            return;
        }
        for joint in joints.chunks_exact_mut(self.coords) {
            let mut given = [0.0; 3];
            given[..self.coords].copy_from_slice(joint);
            for ((out, source), factor) in joint.iter_mut().zip(self.source).zip(self.factor) {
                *out = given[source] * factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame by its directions, as axis number and sign: the body's forward, its left, and up; and units a metre.
    struct Frame {
        forward: (usize, f32),
        left: (usize, f32),
        up: (usize, f32),
        units: f32,
    }

    /// Where things are on a body, in metres: ahead, to its left, up.
    const HEAD: [f32; 3] = [0.0, 0.0, 1.7];
    const NOSE: [f32; 3] = [0.125, 0.0, 1.65];
    const LEFT_HAND: [f32; 3] = [0.25, 0.5, 0.75];
    const RIGHT_HAND: [f32; 3] = [0.0, -0.5, 1.0];
    const BODY: [[f32; 3]; 4] = [HEAD, NOSE, LEFT_HAND, RIGHT_HAND];

    impl Frame {
        /// The body [4, 3] in this frame.
        fn body(&self) -> Vec<f32> {
            let place = |[ahead, left, up]: [f32; 3]| {
                let mut joint = [0.0; 3];
                for ((axis, sign), metres) in [self.forward, self.left, self.up].into_iter().zip([ahead, left, up]) {
                    joint[axis] += sign * metres * self.units;
                }
                joint
            };
            BODY.into_iter().flat_map(place).collect()
        }
    }

    /// A body that faces −z with its left at −x, [4, 3].
    fn facing_back() -> Vec<f32> {
        BODY.into_iter().flat_map(|[ahead, left, up]| [-left, up, -ahead]).collect()
    }

    fn converted(axes: Axes, frame: &Frame) -> Vec<f32> {
        let mut joints = frame.body();
        axes.conversion(3).unwrap().convert(&mut joints);
        joints
    }

    fn expect_close(got: &[f32], expected: &[f32]) {
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} is not {expected:?}");
        assert_eq!(got.len(), expected.len());
    }

    #[test]
    fn unity() {
        // x right, y up, z forward.
        let frame = Frame { forward: (2, 1.0), left: (0, -1.0), up: (1, 1.0), units: 1.0 };
        expect_close(&converted(Axes::UNITY, &frame), &facing_back());
    }

    #[test]
    fn unreal() {
        // x forward, y right, z up.
        let frame = Frame { forward: (0, 1.0), left: (1, -1.0), up: (2, 1.0), units: 100.0 };
        expect_close(&converted(Axes::UNREAL, &frame), &facing_back());
    }

    #[test]
    fn openxr_and_godot() {
        // x right, y up, z back.
        let frame = Frame { forward: (2, -1.0), left: (0, -1.0), up: (1, 1.0), units: 1.0 };
        assert_eq!(converted(Axes::OPENXR, &frame), frame.body());
        expect_close(&frame.body(), &facing_back());
        assert_eq!(Axes::OPENXR.conversion(3).unwrap(), Axes::default().conversion(3).unwrap());
    }

    #[test]
    fn ros() {
        // x forward, y left, z up; a body that faces the robot looks back, with its left on the robot's right.
        let frame = Frame { forward: (0, -1.0), left: (1, -1.0), up: (2, 1.0), units: 1.0 };
        expect_close(&converted(Axes::ROS, &frame), &facing_back());
    }

    #[test]
    fn azure_kinect() {
        // x right, y down, z forward; a body that faces the camera has its left on the right of the picture.
        let frame = Frame { forward: (2, -1.0), left: (0, 1.0), up: (1, -1.0), units: 1000.0 };
        expect_close(&converted(Axes::AZURE_KINECT, &frame), &facing_back());
    }

    #[test]
    fn up_is_up_and_left_stays_left_in_every_frame() {
        let ups = [
            (Up::Usual, (1, 1.0)),
            (Up::PlusX, (0, 1.0)),
            (Up::MinusX, (0, -1.0)),
            (Up::PlusY, (1, 1.0)),
            (Up::MinusY, (1, -1.0)),
            (Up::PlusZ, (2, 1.0)),
            (Up::MinusZ, (2, -1.0)),
        ];
        for (up, direction) in ups {
            for handedness in [Handedness::Right, Handedness::Left] {
                // Forward along either other axis, either way; left is up × forward, by the frame's own hand.
                for (turn, sign) in [(1, 1.0), (1, -1.0), (2, 1.0), (2, -1.0)] {
                    let forward = ((direction.0 + turn) % 3, sign);
                    let hand = if handedness == Handedness::Right { 1.0 } else { -1.0 };
                    let cyclic = if turn == 1 { 1.0 } else { -1.0 };
                    let left = ((direction.0 + 3 - turn) % 3, direction.1 * sign * cyclic * hand);
                    let frame = Frame { forward, left, up: direction, units: 4.0 };
                    let joints = converted(Axes { up, handedness, metres_per_unit: 0.25 }, &frame);
                    let at = |joint: usize| -> [f32; 3] { std::array::from_fn(|axis| joints[joint * 3 + axis]) };
                    assert!((0..4).all(|joint| (at(joint)[1] - BODY[joint][2]).abs() < 1e-6), "{up:?} {handedness:?}: up");
                    // The library's left of a body is up × ahead: (0, 1, 0) × (x, 0, z) = (z, 0, −x).
                    let ahead = [at(1)[0] - at(0)[0], at(1)[2] - at(0)[2]];
                    let to_left = [at(2)[0] - at(3)[0], at(2)[2] - at(3)[2]];
                    let towards = to_left[0] * ahead[1] - to_left[1] * ahead[0];
                    assert!((towards - 0.125).abs() < 1e-6, "{up:?} {handedness:?}: the left hand is on the left, {towards}");
                }
            }
        }
    }

    #[test]
    fn images_are_taken_as_they_come() {
        let mut joints = [3.0, 4.0, 5.0, -6.0];
        let convert = |axes: Axes, joints: &mut [f32]| axes.conversion(2).unwrap().convert(joints);
        convert(Axes::default(), &mut joints);
        convert(Axes { up: Up::MinusY, handedness: Handedness::Left, ..Axes::default() }, &mut joints);
        assert_eq!(joints, [3.0, 4.0, 5.0, -6.0]);
        convert(Axes { up: Up::PlusY, metres_per_unit: 2.0, ..Axes::default() }, &mut joints);
        assert_eq!(joints, [6.0, -8.0, 10.0, 12.0]);
        for up in [Up::PlusX, Up::MinusX, Up::PlusZ, Up::MinusZ] {
            let error = Axes { up, ..Axes::default() }.conversion(2).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { what: "up", .. }));
        }
    }

    #[test]
    fn the_default_changes_no_bit() {
        let values = [f32::NAN, -0.0, f32::INFINITY, 1e-45, 7.0];
        for coords in [2, 3] {
            let conversion = Axes::default().conversion(coords).unwrap();
            assert!(conversion.is_identity() && conversion.coords() == coords);
            let mut joints = values;
            conversion.convert(&mut joints);
            assert_eq!(joints.map(f32::to_bits), values.map(f32::to_bits));
        }
    }

    #[test]
    fn invalid_joints_stay_invalid_and_a_rest_stays() {
        let mut joints = [f32::NAN, 1.0, 2.0, f32::MAX, 0.0, 0.0, 5.0];
        Axes { up: Up::PlusZ, metres_per_unit: 10.0, ..Axes::default() }.conversion(3).unwrap().convert(&mut joints);
        assert!(joints[..3].iter().any(|x| x.is_nan()) && joints[3..6].iter().any(|x| x.is_infinite()));
        assert_eq!(joints[6], 5.0);
    }

    #[test]
    fn bad_units_and_coordinates_are_refused() {
        for metres_per_unit in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let axes = Axes { metres_per_unit, ..Axes::default() };
            assert!(matches!(axes.check(), Err(Error::InvalidArgument { what: "metres per unit", .. })));
            assert!(axes.conversion(3).is_err());
        }
        for coords in [0, 1, 4] {
            assert!(matches!(Axes::default().conversion(coords), Err(Error::InvalidArgument { what: "coords", .. })));
        }
    }
}
