//! Features or embeddings, as the command line names them.

use clap::ValueEnum;
use protonce_encoder::Output;

#[derive(Clone, Copy, ValueEnum)]
pub enum OutputChoice {
    Features,
    Embeddings,
}

impl OutputChoice {
    pub fn output(self) -> Output {
        match self {
            OutputChoice::Features => Output::Features,
            OutputChoice::Embeddings => Output::Embeddings,
        }
    }
}
