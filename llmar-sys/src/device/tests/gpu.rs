//! The CUDA backend under test: opening it, and what it promises beyond the cases of every backend.

use std::sync::{Arc, OnceLock};

use super::super::cuda::{Cuda, Gpu};
use super::super::{Buffer, Device, Matrix, Recorded, Rotations, Scheme, Store};
use super::Random;
use crate::error::{Error, Missing};
use crate::memory::Budget;

#[path = "../../../../tests/common/emulator.rs"]
mod emulator;

/// The GPUs of the tests: the first real one, or the emulator's two, of which one runs the threads of a block forwards and the other backwards.
fn gpus() -> &'static [Arc<Gpu>] {
    static GPUS: OnceLock<Vec<Arc<Gpu>>> = OnceLock::new();
    GPUS.get_or_init(|| {
        emulator::load();
        let count = if emulator::is_real() { 1 } else { 2 };
        (0..count).map(|ordinal| Gpu::open(ordinal, Budget::new(0)).unwrap()).collect()
    })
}

/// A stream of each.
pub fn devices() -> Vec<(String, Device)> {
    gpus().iter().map(|gpu| (gpu.place(), Device::Cuda(Cuda::new(Arc::clone(gpu)).unwrap()))).collect()
}

#[test]
fn a_gpu_that_is_not_there_says_so() {
    gpus();
    match Gpu::open(1000, Budget::new(0)) {
        Err(Error::NoDevice { missing: Missing::Gpu, device, .. }) => assert_eq!(device, "cuda:1000"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_is_counted_and_given_back() {
    let gpu = Gpu::open(gpus()[0].place().strip_prefix("cuda:").unwrap().parse().unwrap(), Budget::new(1 << 20)).unwrap();
    let device = Device::Cuda(Cuda::new(Arc::clone(&gpu)).unwrap());
    let mut first = device.buffer();
    device.reserve("first", &mut first, 200_000).unwrap();
    assert!((800_000..801_000).contains(&gpu.budget().used()), "{}", gpu.budget().used());
    let mut second = device.buffer();
    match device.reserve("second", &mut second, 100_000) {
        Err(Error::Budget { what: "second", budget: 1_048_576, .. }) => {}
        other => panic!("{other:?}"),
    }
    drop(first);
    device.reserve("second", &mut second, 100_000).unwrap();
    drop((second, device));
    assert_eq!(gpu.budget().used(), 0);
    let device = Device::Cuda(Cuda::new(gpus()[0].clone()).unwrap());
    assert!(matches!(device.reserve("absurd", &mut device.buffer(), usize::MAX / 8), Err(Error::OutOfMemory { what: "absurd", .. })));
}

#[test]
fn what_grows_keeps_the_cache() {
    for (_, device) in devices() {
        let mut buffer = device.buffer();
        let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        device.write("test", &mut buffer, &values).unwrap();
        let mut back = vec![0.0; 1000];
        device.read(&buffer, &mut back).unwrap();
        assert_eq!(back, values);
        assert!(device.read(&buffer, &mut vec![0.0; 5000]).is_err());
    }
}

#[test]
fn heads_that_the_attention_kernels_do_not_take_are_refused() {
    let (_, device) = devices().remove(0);
    assert!(device.place_rotations(&Rotations::new(10_000.0, 256, 8)).is_ok());
    assert!(matches!(device.place_rotations(&Rotations::new(10_000.0, 258, 8)), Err(Error::Unsupported { .. })));
}

#[test]
fn memory_of_another_device_is_refused() {
    let (_, gpu) = devices().remove(0);
    let cpu = Device::cpu(1).unwrap();
    let (mut here, mut there) = (cpu.buffer(), gpu.buffer());
    assert!(cpu.write("test", &mut there, &[1.0]).is_err() && gpu.write("test", &mut here, &[1.0]).is_err());
    let w = Matrix::pack(Scheme::F16, 16, 32, &[0.0; 512]);
    let mut x = gpu.operand();
    gpu.write_operand("test", &mut x, &[0.0; 32], 1, 32).unwrap();
    gpu.reserve("test", &mut there, 16).unwrap();
    assert!(gpu.linear(&w, &x, 1, &mut there, Store::Overwrite).is_err(), "a matrix that was not placed");
}

#[test]
fn a_recorded_pass_runs_again_with_what_its_inputs_then_hold() {
    let mut random = Random(30);
    for (name, device) in devices() {
        let w = Matrix::pack(Scheme::F16, 48, 64, &random.vec(48 * 64));
        let w = device.place_matrix(&w).unwrap();
        let mut recorded = device.recorded();
        let (mut x, mut y) = (device.operand(), device.buffer());
        let mut want = device.buffer();
        device.reserve("test", &mut y, 2 * 48).unwrap();
        device.reserve("test", &mut want, 2 * 48).unwrap();
        let mut seen = Vec::new();
        for round in 0..5 {
            let values = random.vec(2 * 64);
            device.write_operand("test", &mut x, &values, 2, 64).unwrap();
            device.linear(&w, &x, 2, &mut want, Store::Overwrite).unwrap();
            let mut ran = false;
            device
                .repeat(&mut recorded, 2, [7, 0, 0], || {
                    ran = true;
                    device.linear(&w, &x, 2, &mut y, Store::Overwrite)
                })
                .unwrap();
            seen.push(ran);
            let read = |buffer: &Buffer| {
                let mut values = vec![0.0; 2 * 48];
                device.read(buffer, &mut values).unwrap();
                values
            };
            assert_eq!(read(&y), read(&want), "round {round}, {name}");
        }
        assert!(matches!(recorded, Recorded::Cuda(_)));
        assert_eq!(seen, [true, true, false, false, false], "run, recorded, run again, {name}");
    }
}
