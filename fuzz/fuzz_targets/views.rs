//! Any bytes become an image or an error, and every image becomes views.
//!
//! cargo +nightly fuzz run views fuzz/corpus/views SOME_IMAGES -- -rss_limit_mb=2048

#![no_main]

use libfuzzer_sys::fuzz_target;
use protonce_images::views::{
    Decoder, Image, Renderer, View, ViewConfig, ViewParameters, ViewRandom,
};

fuzz_target!(|bytes: &[u8]| {
    let config = ViewConfig::v2(32);
    let mut image = Image::default();
    let mut random = ViewRandom::new(0, 0, bytes.len() as u64, View::Query);
    let mut parameters = None;
    let decoded = Decoder::default().decode_part(bytes, &mut image, |width, height| {
        let drawn = ViewParameters::draw(&config, width, height, &mut random);
        parameters.insert(drawn).crop
    });
    if let (Ok(()), Some(parameters)) = (decoded, parameters) {
        Renderer::new(&config).training(&image, &parameters);
    }
});
