//! stand-in
#[path = "common/tiny.rs"]
mod tiny;
#[test]
fn tiny_file() {
    let folder = std::path::PathBuf::from(std::env::var_os("TINY_OUT").unwrap());
    tiny::file_in(&folder, llmar::device::Scheme::Q8);
    tiny::file_in(&folder, llmar::device::Scheme::F32);
}
