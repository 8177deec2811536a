//! Errors of the trainer.

/// Result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, with the place it went wrong at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// From the runtime: clip, checkpoint, layout, file.
    #[error(transparent)]
    Runtime(#[from] llmar::Error),
    /// A model or data file that is damaged or not of its kind.
    #[error("{file}: {detail}")]
    Format {
        /// File, and place in it.
        file: String,
        /// What was expected and what stands there.
        detail: String,
    },
    /// Files that do not belong together.
    #[error("{file} was made for a {part} with SHA-256 {expected}, but {given} has {got}")]
    Mismatch {
        /// The file that depends on the other.
        file: std::path::PathBuf,
        /// What the other is: base model source, stage-1 file.
        part: &'static str,
        /// Digest that the dependent file asks for.
        expected: String,
        /// The other file.
        given: std::path::PathBuf,
        /// Its digest.
        got: String,
    },
    /// A setting outside its range.
    #[error("setting `{name}`: expected {expected}, got {got}")]
    Setting {
        /// Dotted name as in the TOML file.
        name: String,
        /// Range.
        expected: String,
        /// What came.
        got: String,
    },
    /// An adapter that asks for what the other side cannot do: one of another project here, or one with a head in a checkpoint.
    #[error("{file}: `{name}`: expected {expected}, got {got}", file = file.display())]
    Unsupported {
        /// Its file.
        file: std::path::PathBuf,
        /// Key of its settings, or name of its tensor.
        name: String,
        /// What can be said.
        expected: String,
        /// What it says.
        got: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A stage that this build does without.
    #[error(
        "`{command}` needs libtorch, and this program was built without it: set LIBTORCH and build with `--features torch` (see README)"
    )]
    NotBuilt {
        /// The subcommand.
        command: &'static str,
    },
    /// libtorch refused an operation.
    #[cfg(feature = "torch")]
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// Shorthand for [`Error::Format`].
    pub fn format(file: impl ToString, detail: impl ToString) -> Self {
        Self::Format { file: file.to_string(), detail: detail.to_string() }
    }

    /// Shorthand for [`Error::Io`], for `map_err`.
    pub fn io(path: impl Into<std::path::PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
