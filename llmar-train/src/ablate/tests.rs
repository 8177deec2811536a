//! A table of small runs: finished, resumed, changed, and its arithmetic.

use std::path::Path;

use super::table::Spread;
use super::{Config, Line, ablate, read_lines, rows, start_digest};
use crate::error::{Error, Result};
use crate::import::import;
use crate::testing::shared;
use crate::vqvae::tests::{alone, small_run};

const STAGE2: &str = r#"
name = "made up"
snapshot_steps = 0
[data]
archive = "ARCHIVE"
split = "subjects"
[adapter]
rank = 4
[map]
scale = 1.0
[train]
steps = 30
batch = 9
micro_batch = 9
lr = 1e-2
"#;

const TABLE: &str = r#"
name = "made up"
out = "OUT"
base = "BASE"
seeds = [0, 1]
stage1 = "stage1.toml"
stage2 = "stage2.toml"
[[variant]]
name = "full"
paper = 91.5
[[variant]]
name = "features"
set2 = ["map.reads=features"]
measure = "trainer"
paper = 83.4
[[variant]]
name = "unseen"
unseen = { classes = 2, draws = 1 }
[[variant]]
name = "words"
measure = "words"
unseen = { classes = 2, draws = 1 }
[[variant]]
name = "runtime words"
set2 = ["words={ridge=1.0,temperature=0.1}", "data.texts={wave=\"right hand up\",kick=\"left leg up\",sink=\"hand leg down\"}"]
scoring = "words"
unseen = { classes = 1, draws = 1 }
"#;

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io(path))
}

#[test]
fn a_table_is_finished_resumed_and_follows_its_settings() -> Result<()> {
    let _alone = alone();
    let Some(source) = shared("a_table_is_finished_resumed_and_follows_its_settings", "golden/stories260k") else { return Ok(()) };
    let (folder, stage1) = small_run(&["data.validation_subjects=[]"])?;
    let at = |name: &str| folder.path().join(name);
    import(&source, &at("base.safetensors"))?;
    let text = toml::to_string(&stage1).map_err(|e| Error::format("settings", e))?;
    write(&at("stage1.toml"), &text)?;
    write(&at("stage2.toml"), &STAGE2.replace("ARCHIVE", &stage1.data.archive.display().to_string()))?;
    let table = TABLE.replace("OUT", &at("out").display().to_string()).replace("BASE", &at("base.safetensors").display().to_string());
    write(&at("table.toml"), &table)?;
    let config = Config::read(&at("table.toml"))?;

    let some = ablate(&config, folder.path(), &["features".to_owned()], false)?;
    assert_eq!(some.len(), 2);
    let all = ablate(&config, folder.path(), &[], false)?;
    let names: Vec<(&str, u64)> = all.iter().map(|line| (line.variant.as_str(), line.seed)).collect();
    assert_eq!(names, [("full", 0), ("full", 1), ("features", 0), ("features", 1), ("unseen", 0), ("words", 0), ("runtime words", 0)]);
    assert!(all[0].top1 > 50.0 && all[0].n > 0 && all[0].mean_class.is_some(), "{all:#?}");
    assert_eq!((all[2].n, all[4].unseen.len()), (all[0].n, 2));
    assert!(all[4].n < all[0].n && all[4].further.contains_key("balanced"), "{:#?}", all[4]);
    // The same clips are asked about, of whichever side, with nothing trained beyond stage 1.
    assert!(all[5].n == all[4].n && all[5].stage2.is_null() && all[5].unseen == all[4].unseen, "{:#?}", all[5]);
    // The one class that is asked for, through the C ABI.
    assert!(all[6].n > 0 && all[6].top1 == 100.0 && all[6].mean_class.is_some(), "{:#?}", all[6]);
    // One stage 1 a seed, shared by two variants, one without the unseen classes, and one without the last row's.
    assert_eq!(std::fs::read_dir(at("out/stage1")).map_err(Error::io(&at("out")))?.count(), 4);

    // A line that was cut off is run again and nothing else.
    let path = at("out/runs.jsonl");
    let whole = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    write(&path, &whole[..whole.len() - 40])?;
    assert_eq!(read_lines(&path)?.len(), 6);
    assert_eq!(ablate(&config, folder.path(), &[], true)?.len(), 6);
    let torn = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    write(&path, &torn[..torn.rfind('\n').map_or(0, |end| end + 1)])?;
    let again = ablate(&config, folder.path(), &[], false)?;
    let figures = |lines: &[Line]| lines.iter().map(|l| (l.variant.clone(), l.digest.clone(), l.top1)).collect::<Vec<_>>();
    assert_eq!(figures(&again), figures(&all));

    // Other settings are other runs.
    write(&at("table.toml"), &table.replace("set2 = [", "set2 = [\"train.steps=20\", "))?;
    let changed = Config::read(&at("table.toml"))?;
    assert_eq!(ablate(&changed, folder.path(), &[], true)?.len(), 4);
    // So are those from an encoder; before it is made, there are none to show.
    let start = format!("set1 = [\"encoder.start={}\"]\npaper = 91.5", at("start.safetensors").display());
    write(&at("table.toml"), &table.replace("paper = 91.5", &start))?;
    let started = Config::read(&at("table.toml"))?;
    assert_eq!(ablate(&started, folder.path(), &[], true)?.len(), 5);
    assert!(ablate(&started, folder.path(), &["full".to_owned()], false).is_err());
    let rows = rows(&config, &all);
    assert_eq!(rows[1].paper, Some(83.4));
    let difference = (all[2].top1 - all[0].top1 + all[3].top1 - all[1].top1) / 2.0;
    assert!(rows[1].difference.is_some_and(|s| (s.mean - difference).abs() < 1e-9));
    assert!(rows[0].difference.is_none() && rows[2].difference.is_none());
    write(&at("table.toml"), &table.replace("paper = 83.4", "paper = 83.4\n[[variant]]\nname = \"odd\"\nmeasure = \"words\""))?;
    assert!(Config::read(&at("table.toml")).is_err_and(|e| e.to_string().contains("words of odd")));
    write(&at("table.toml"), &table.replace("measure = \"words\"", "measure = \"words\"\nscoring = \"words\""))?;
    assert!(Config::read(&at("table.toml")).is_err_and(|e| e.to_string().contains("variant.scoring")));
    write(&at("table.toml"), &table.replace("\"words={ridge=1.0,temperature=0.1}\", ", ""))?;
    let without = Config::read(&at("table.toml"))?;
    assert!(without.jobs(&without.variants[4], folder.path()).is_err_and(|e| e.to_string().contains("`words`")));
    write(&at("table.toml"), &table.replace("name = \"features\"", "name = \"full\""))?;
    assert!(Config::read(&at("table.toml")).is_err_and(|e| e.to_string().contains("full")));
    Ok(())
}

#[test]
fn a_run_depends_on_the_encoder_it_starts_from() -> Result<()> {
    let (folder, mut stage1) = small_run(&[])?;
    let at = |name: &str| folder.path().join(name);
    stage1.encoder.start = Some(at("start.safetensors"));
    write(&at("stage1.toml"), &toml::to_string(&stage1).map_err(|e| Error::format("settings", e))?)?;
    let data = "split = \"subjects\"\nvalidation_subjects = [2]";
    let stage2 = STAGE2.replace("ARCHIVE", &stage1.data.archive.display().to_string()).replace("split = \"subjects\"", data);
    write(&at("stage2.toml"), &stage2)?;
    write(&at("table.toml"), TABLE)?;
    let config = Config::read(&at("table.toml"))?;
    let jobs = config.jobs(&config.variants[0], folder.path())?;
    assert!(start_digest(&jobs[0]).is_err(), "a file that is not there");
    let digest = |text: &str| -> Result<_> {
        write(&at("start.safetensors"), text)?;
        start_digest(&jobs[0])
    };
    let first = digest("one")?;
    assert!(first.is_some() && first == digest("one")? && first != digest("two")?);
    // What the runtime does not run it is not asked to measure.
    for set in ["map.reads=features", "answer=linear_head"] {
        write(&at("table.toml"), &TABLE.replace("map.reads=features", set).replace("measure = \"trainer\"\n", ""))?;
        let config = Config::read(&at("table.toml"))?;
        assert!(config.jobs(&config.variants[1], folder.path()).is_err_and(|e| e.to_string().contains("variant.measure")), "{set}");
    }
    let mut alone = jobs[0].clone();
    alone.stage1.encoder.start = None;
    assert_eq!(start_digest(&alone)?, None);
    Ok(())
}

#[test]
fn spreads_are_means_and_sample_deviations() {
    assert_eq!(Spread::of(&[]), None);
    assert_eq!(Spread::of(&[3.0]), Some(Spread { n: 1, mean: 3.0, deviation: 0.0 }));
    assert_eq!(Spread::of(&[1.0, 2.0, 3.0]), Some(Spread { n: 3, mean: 2.0, deviation: 1.0 }));
}

#[test]
fn the_shipped_tables_are_valid() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for name in ["ablate-utd.toml", "accuracy.toml", "generality.toml"] {
        let config = Config::read(&folder.join(name))?;
        for variant in config.variants.iter().filter(|v| v.unseen.is_none()) {
            assert_eq!(config.jobs(variant, &folder)?.len(), config.seeds.len(), "{name}, {}", variant.name);
        }
    }
    Ok(())
}
