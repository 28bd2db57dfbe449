//! Weights that do not belong to an encoder.

/// Why weights cannot be loaded into an encoder. Nothing of the encoder has changed then.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// The weights lack a tensor that the architecture has.
    #[error("the weights lack \"{name}\" {expected:?}: they belong to another architecture")]
    MissingTensor {
        /// The tensor's name.
        name: String,
        /// The shape it should have.
        expected: Vec<i64>,
    },
    /// A tensor of the weights has another shape than the architecture's tensor of that name.
    #[error(
        "\"{name}\" has shape {found:?}, expected {expected:?}: the weights belong to another architecture"
    )]
    WrongShape {
        /// The tensor's name.
        name: String,
        /// The shape it should have.
        expected: Vec<i64>,
        /// The shape it has.
        found: Vec<i64>,
    },
}
