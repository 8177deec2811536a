//! Passes of few rows, recorded as CUDA graphs: one call puts a few hundred kernels on the stream.

use std::sync::atomic::Ordering;

use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

use super::Cuda;
use crate::error::{Error, Result};

/// What is known of passes of each number of rows.
#[derive(Debug, Default)]
pub struct Graphs(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    rows: usize,
    id: [usize; 3],
    /// Allocations of the stream when it last ran: as long as there is no other, every pointer is the same.
    allocations: u64,
    /// `None` until it ran once without one: the first run allocates and loads what it needs.
    graph: Option<Graph>,
}

struct Graph(CudaGraph);

// SAFETY: a graph may be used from any thread, by one at a time; `Graphs` gives it to holders of `&mut` alone.
unsafe impl Send for Graph {}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graph")
    }
}

impl Cuda {
    /// See [`Device::repeat`](crate::device::Device::repeat).
    pub(in crate::device) fn repeat(&self, graphs: &mut Graphs, n: usize, id: [usize; 3], ops: impl FnOnce() -> Result<()>) -> Result<()> {
        if n > super::SKINNY_ROWS {
            return ops();
        }
        let allocations = || self.stream.allocations.load(Ordering::Relaxed);
        graphs.0.retain(|entry| entry.id == id && entry.allocations == allocations());
        match graphs.0.iter_mut().find(|entry| entry.rows == n) {
            Some(Entry { graph: Some(graph), .. }) => self.gpu.check("a recorded pass", graph.0.launch()),
            Some(entry) => {
                let graph = self.record(ops)?;
                self.gpu.check("a recorded pass", graph.0.launch())?;
                entry.graph = Some(graph);
                Ok(())
            }
            None => {
                ops()?;
                graphs.0.push(Entry { rows: n, id, allocations: allocations(), graph: None });
                Ok(())
            }
        }
    }

    /// Records what `ops` puts on the stream; nothing of it runs yet.
    fn record(&self, ops: impl FnOnce() -> Result<()>) -> Result<Graph> {
        const CALL: &str = "recording a pass";
        // Other threads may use other streams of this GPU meanwhile.
        self.gpu.check(CALL, self.stream.cuda.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))?;
        let result = ops();
        let graph = self.stream.cuda.end_capture(CUgraphInstantiate_flags(0));
        result?;
        match self.gpu.check(CALL, graph)? {
            Some(graph) => Ok(Graph(graph)),
            None => Err(Error::DeviceFault { device: self.gpu.place(), call: CALL, detail: "the driver gave no graph".into() }),
        }
    }
}
