//! Matrix products of SmolLM2-135M on the CPU, each scheme, beside the machine's own ceilings measured in the same run.
//!
//! Weights are thirty different copies of every matrix, as in the model, so that none stays in a cache that a real pass would not
//! keep it in. A table of the best of several runs comes first; `cargo bench --bench kernels -- linear` adds criterion's statistics.
//! `LLMAR_BENCH_THREADS` (2) sets the threads, `LLMAR_BENCH_ISA` (avx512, avx2, neon, portable) the instruction set.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use llmar::device::{Cpu, Isa, Matrix, Scheme, Store, pack};

/// (name, rows, cols) of one layer.
const LAYER: [(&str, usize, usize); 4] = [("qkv", 960, 576), ("o", 576, 576), ("gate_up", 3072, 576), ("down", 576, 1536)];
const LAYERS: usize = 30;
const TOKENS: [usize; 4] = [1, 8, 24, 40];
const SCHEMES: [Scheme; 4] = [Scheme::F32, Scheme::F16, Scheme::Q8, Scheme::Q4];

/// Pseudo-random values in −1..1.
fn values(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Seconds of the fastest of at least `runs` calls and .3 s.
fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut done = 0;
    while done < runs || begin.elapsed().as_secs_f64() < 0.3 {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
        done += 1;
    }
    best
}

/// Thirty copies of one matrix.
fn copies(scheme: Scheme, rows: usize, cols: usize) -> Vec<Matrix> {
    let packed = pack(scheme, rows, cols, &values(rows * cols));
    (0..LAYERS).map(|_| packed.clone().into_matrix(rows, cols)).collect()
}

fn device() -> Cpu {
    let threads = std::env::var("LLMAR_BENCH_THREADS").ok().and_then(|v| v.parse().ok()).unwrap_or(2);
    let isa = match std::env::var("LLMAR_BENCH_ISA").as_deref() {
        Ok("portable") => Isa::Portable,
        Ok("avx2") => Isa::Avx2,
        Ok("avx512") => Isa::Avx512,
        Ok("neon") => Isa::Neon,
        _ => Isa::best(),
    };
    Cpu::with_isa(isa, threads).expect("an instruction set of this machine and 1 to 256 threads")
}

/// The machine's ceilings, then every product beside them.
fn table(cpu: &Cpu) {
    println!("{:?}, {} threads", cpu.isa(), cpu.threads());
    let rounds = 1_000_000;
    let fma = 2.0 * cpu.multiply_adds(rounds) as f64
        / best(5, || {
            black_box(cpu.multiply_adds(rounds));
        })
        / 1e9;
    println!("ceiling: {fma:.0} GFLOP/s of f32 multiply-adds in registers; integer dot products do four times as many a lane");
    for mib in [64, 128, 512] {
        let memory = values(mib << 18);
        let read = (mib << 20) as f64 / best(5, || cpu.read(&memory)) / 1e9;
        println!("ceiling: {read:.1} GB/s reading {mib} MiB");
    }
    println!("{:8} {:6} {:>3} {:>9} {:>9} {:>8}", "matrix", "scheme", "n", "µs", "GFLOP/s", "GB/s");
    for scheme in SCHEMES {
        let layers: Vec<_> = LAYER.iter().map(|&(name, rows, cols)| (name, copies(scheme, rows, cols))).collect();
        for n in TOKENS {
            let x = values(n * 1536);
            let mut y = vec![0.0; n * 3072];
            let mut run = |name: &str, which: &[usize]| {
                let seconds = best(5, || {
                    for layer in 0..LAYERS {
                        for &m in which {
                            cpu.linear(&layers[m].1[layer], &x, n, &mut y, Store::Overwrite);
                        }
                    }
                }) / LAYERS as f64;
                let weights: usize = which.iter().map(|&m| LAYER[m].1 * LAYER[m].2).sum();
                let bytes: usize = which.iter().map(|&m| layers[m].1[0].byte_len()).sum();
                let gflops = 2.0 * (weights * n) as f64 / seconds / 1e9;
                println!("{name:8} {scheme:6?} {n:3} {:9.1} {gflops:9.1} {:8.1}", seconds * 1e6, bytes as f64 / seconds / 1e9);
            };
            for (m, (name, ..)) in LAYER.iter().enumerate() {
                run(name, &[m]);
            }
            run("layer", &[0, 1, 2, 3]);
        }
    }
}

/// The same products under criterion.
fn linear(criterion: &mut Criterion, device: &Cpu) {
    for scheme in SCHEMES {
        let mut group = criterion.benchmark_group(format!("linear/{scheme:?}"));
        for (name, rows, cols) in LAYER {
            let matrices = copies(scheme, rows, cols);
            for n in TOKENS {
                let x = values(n * cols);
                let mut y = vec![0.0; n * rows];
                let mut next = matrices.iter().cycle();
                group.throughput(Throughput::Elements((2 * n * rows * cols) as u64));
                group.bench_function(format!("{name}/{n}"), |bencher| {
                    bencher.iter(|| {
                        if let Some(matrix) = next.next() {
                            device.linear(matrix, &x, n, &mut y, Store::Overwrite);
                        }
                    });
                });
            }
        }
        group.finish();
    }
}

fn main() {
    let device = device();
    table(&device);
    let mut criterion = Criterion::default().configure_from_args();
    if std::env::args().any(|arg| arg.starts_with("linear")) {
        linear(&mut criterion, &device);
    }
    criterion.final_summary();
}
