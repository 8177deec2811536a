use super::engine::Engine;
use super::inbox::Inbox;
use crate::error::Result;
pub(super) fn save(_engine: &Engine, _inbox: &Inbox) -> Vec<u8> {
    Vec::new()
}
pub(super) fn load(_bytes: &[u8], _engine: &mut Engine, _inbox: &mut Inbox) -> Result<()> {
    Ok(())
}
