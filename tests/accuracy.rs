//! The committed demo adapter on the test subjects of UTD-MHAD, exported and asked through the C ABI: accuracy, and what q8 and q4 cost.

use std::path::Path;

use llmar::device::Scheme;
use llmar_train::cli::Part;
use llmar_train::evaluate::{Asking, Disturbance, Report, Side, ask};
use llmar_train::{export, import};

#[path = "common/shared.rs"]
mod shared;
#[path = "common/smollm2.rs"]
mod smollm2;

fn report(folder: &Path, data: &Path, scheme: Scheme) -> Report {
    let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/utd-mhad");
    let model = folder.join(format!("{scheme:?}.llmar"));
    export::export(
        &folder.join("base.safetensors"),
        &adapter.join("stage1.safetensors"),
        &adapter.join("adapter.safetensors"),
        scheme,
        &model,
    )
    .expect("the committed adapter exports");
    let side = Side::read(data, "cross_subject", Part::Test).expect("the archive has the split");
    let asking = Asking { threads: 2, ..Asking::default() };
    ask(&model, &side, &asking, &Disturbance::default()).expect("every clip of the archive can be recognised").report
}

#[test]
fn demo_adapter_names_the_actions_of_new_subjects() {
    const TEST: &str = "demo_adapter_names_the_actions_of_new_subjects";
    let (Some(gguf), Some(data)) = (smollm2::gguf(TEST), shared::shared(TEST, "data/utd_mhad.safetensors")) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    import::import(&gguf, &folder.path().join("base.safetensors")).expect("SmolLM2 imports");

    let [f16, q8, q4] = [Scheme::F16, Scheme::Q8, Scheme::Q4].map(|scheme| report(folder.path(), &data, scheme));
    for (name, report) in [("f16", &f16), ("q8", &q8), ("q4", &q4)] {
        println!("{name}: {} clips, top-1 {:.2} %, ECE {:.3}", report.n, report.metrics.top1, report.metrics.ece);
        assert_eq!((report.n, report.unnameable), (430, 0));
    }
    assert!(q8.metrics.top1 >= 87.0, "q8: {:.2} %", q8.metrics.top1);
    assert!((q8.metrics.top1 - f16.metrics.top1).abs() <= 0.5, "q8 {:.2} %, f16 {:.2} %", q8.metrics.top1, f16.metrics.top1);
    assert!(f16.metrics.top1 - q4.metrics.top1 <= 2.0, "q4 {:.2} %, f16 {:.2} %", q4.metrics.top1, f16.metrics.top1);
}
