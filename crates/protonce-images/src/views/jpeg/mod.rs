//! The plain JPEG, decoded quickly: to the very pixels of libjpeg, and only where they are wanted.
//!
//! Nearly every photograph in nearly every data set is a baseline JPEG in one scan. For these, half
//! the time of making views would be spent in a general decoder. What is different here: escape
//! bytes are removed from the entropy-coded bytes before these are decoded, so that bits are read
//! without a branch; one table look-up yields a whole coefficient, run and value; tables are kept from image
//! to image, since files of one camera or program share theirs; and of blocks that no crop touches
//! the coefficients are read but no pixel is computed.
//!
//! Everything else (progressive, arithmetic, four components, several scans, odd samplings, damage of
//! any kind) makes [`Reader::decode`] return none. A general decoder then reads the file, or says what
//! is wrong with it.
//!
//! Source: ITU-T T.81. The arithmetic of [`blocks`] and [`samples`] is that of the Independent JPEG
//! Group's "slow integer" transform, triangle upsampling and fixed-point colour conversion, which are
//! the defaults of libjpeg and thus of Pillow.

mod blocks;
mod huffman;
mod samples;

use image::metadata::Orientation;

use self::blocks::inverse_transform;
use self::huffman::{Bits, Table};
use self::samples::Converter;
use super::{CropBox, Image};

/// Reads plain JPEGs; keeps its tables and working memory between images.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Tables of DC differences and of AC coefficients by the number a file gives them.
    tables: [[Table; 4]; 2],
    entropy: Entropy,
    planes: [Plane; 3],
    converter: Converter,
}

/// The entropy-coded bytes of a scan without escapes and markers.
#[derive(Debug, Default)]
struct Entropy {
    bytes: Vec<u8>,
    /// Where each restart interval ends; without restarts there is one.
    ends: Vec<usize>,
}

/// The samples of a component, in whole blocks.
#[derive(Debug, Default)]
pub(super) struct Plane {
    samples: Vec<u8>,
    stride: usize,
    /// Columns and rows that belong to the image.
    width: usize,
    height: usize,
}

/// What a file says before its scan.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub width: usize,
    pub height: usize,
    /// From EXIF metadata.
    pub orientation: Option<Orientation>,
    components: [Component; 3],
    component_count: usize,
    /// In the order of coefficients, zigzag.
    quantisation: [Quantisation; 4],
    restart_interval: usize,
    colour: Colour,
    /// Position of the first entropy-coded byte.
    scan: usize,
}

#[derive(Clone, Copy, Debug)]
struct Quantisation([u16; 64]);

impl Default for Quantisation {
    fn default() -> Quantisation {
        Quantisation([1; 64])
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Colour {
    #[default]
    YCbCr,
    Rgb,
}

#[derive(Clone, Copy, Debug, Default)]
struct Component {
    id: u8,
    horizontal: usize,
    vertical: usize,
    quantisation: usize,
    dc: usize,
    ac: usize,
}

impl Reader {
    /// Reads everything up to the scan; none unless the file is plain.
    pub(super) fn read_header(&mut self, bytes: &[u8]) -> Option<Header> {
        let mut header = Header::default();
        let mut colours = ColourMarkers::default();
        let mut tables_seen = [[false; 4]; 2];
        let mut quantisation_seen = [false; 4];
        let mut position = 2;
        if bytes.get(..2)? != [0xff, 0xd8] {
            return None;
        }
        loop {
            let (&[0xff, marker], rest) = bytes.get(position..)?.split_first_chunk::<2>()? else {
                return None;
            };
            let length = usize::from(u16::from_be_bytes(*rest.first_chunk::<2>()?));
            let body = rest.get(2..length)?;
            position += 2 + length;
            match marker {
                0xc0 | 0xc1 if header.component_count == 0 => header.read_frame(body)?,
                0xc4 => self.read_tables(body, &mut tables_seen)?,
                0xdb => header.read_quantisation(body, &mut quantisation_seen)?,
                0xdd => {
                    header.restart_interval = usize::from(u16::from_be_bytes(*body.first_chunk()?))
                }
                0xe0 => colours.jfif |= body.starts_with(b"JFIF\0"),
                0xe1 if header.orientation.is_none() => {
                    header.orientation =
                        body.strip_prefix(b"Exif\0\0").and_then(Orientation::from_exif_chunk);
                }
                0xee if body.starts_with(b"Adobe") => colours.adobe = Some(*body.get(11)?),
                0xda => {
                    header.read_scan(body)?;
                    break;
                }
                // Application data and comments.
                0xe1..=0xef | 0xfe => {}
                _ => return None,
            }
        }
        header.scan = position;
        header.colour = colours.of(header.components())?;
        let known = header.components().iter().all(|component| {
            tables_seen[0][component.dc]
                && tables_seen[1][component.ac]
                && quantisation_seen[component.quantisation]
        });
        known.then_some(header)
    }

    fn read_tables(&mut self, mut body: &[u8], seen: &mut [[bool; 4]; 2]) -> Option<()> {
        while let Some((&slot, rest)) = body.split_first() {
            let (class, number) = (usize::from(slot >> 4), usize::from(slot & 15));
            let counts = rest.first_chunk::<16>()?;
            let symbols = counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let definition = rest.get(..16 + symbols)?;
            self.tables.get_mut(class)?.get_mut(number)?.define(definition, class == 1)?;
            seen[class][number] = true;
            body = &rest[16 + symbols..];
        }
        Some(())
    }

    /// The pixels in `part` of the image that `header` begins; those elsewhere are unspecified.
    ///
    /// None when the file turns out to be damaged or not plain.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        header: &Header,
        part: CropBox,
        image: &mut Image,
    ) -> Option<()> {
        let Header { width, height, .. } = *header;
        let largest = |side: fn(&Component) -> usize| header.components().iter().map(side).max();
        let (columns, rows) = (largest(|c| c.horizontal)?, largest(|c| c.vertical)?);
        let (across, down) = (width.div_ceil(8 * columns), height.div_ceil(8 * rows));

        self.entropy.collect(bytes.get(header.scan..)?)?;
        let interval = match header.restart_interval {
            0 => across * down,
            interval => interval,
        };
        if self.entropy.ends.len() != (across * down).div_ceil(interval) {
            return None;
        }
        // A block takes two bits at least: a file that claims many pixels has many bytes.
        let blocks = header.components().iter().map(|c| c.horizontal * c.vertical).sum::<usize>();
        if across * down * blocks > self.entropy.bytes.len() * 4 {
            return None;
        }
        for (plane, component) in self.planes.iter_mut().zip(header.components()) {
            plane.stride = across * component.horizontal * 8;
            plane.width = (width * component.horizontal).div_ceil(columns);
            plane.height = (height * component.vertical).div_ceil(rows);
            plane.samples.resize(plane.stride * down * component.vertical * 8, 0);
        }
        image.width = width;
        image.height = height;
        image.pixels.resize(width * height * 3, 0);

        // Blocks that are looked at. Upsampling looks at a sample's neighbours as well.
        let wanted = |from: usize, length: usize, unit: usize| {
            from.saturating_sub(2) / unit..(from + length + 2).div_ceil(unit)
        };
        let wanted_across = wanted(part.left, part.width, 8 * columns);
        let wanted_down = wanted(part.top, part.height, 8 * rows);

        let tables = &self.tables;
        let mut scan = header.components().iter().map(|component| {
            let quantisation = &header.quantisation[component.quantisation].0;
            (component, &tables[0][component.dc], &tables[1][component.ac], quantisation)
        });
        let coded: [_; 3] = std::array::from_fn(|_| scan.next());
        let mut block = [0i16; 64];
        let mut previous = [0i32; 3];
        let mut bits = Bits::default();
        let mut begin = 0;
        let mut ends = self.entropy.ends.iter();
        let mut left_in_interval = 0;
        let mut converted = part.top;
        for y in 0..down {
            for x in 0..across {
                if left_in_interval == 0 {
                    // Bits that were read past an interval's end belong to the next interval.
                    if !bits.within(begin) {
                        return None;
                    }
                    bits = Bits::at(begin);
                    begin = *ends.next()?;
                    previous = [0; 3];
                    left_in_interval = interval;
                }
                left_in_interval -= 1;
                let visible = wanted_across.contains(&x) && wanted_down.contains(&y);
                for (number, coded) in coded.iter().enumerate() {
                    let Some((component, dc, ac, quantisation)) = *coded else { break };
                    let plane = &mut self.planes[number];
                    for row in 0..component.vertical {
                        for column in 0..component.horizontal {
                            let bytes = &self.entropy.bytes;
                            let previous = &mut previous[number];
                            if !visible {
                                bits.skip_block(bytes, dc, ac, previous)?;
                                continue;
                            }
                            let last =
                                bits.block(bytes, dc, ac, quantisation, previous, &mut block)?;
                            let top = (y * component.vertical + row) * 8;
                            let left = (x * component.horizontal + column) * 8;
                            let output = &mut plane.samples[top * plane.stride + left..];
                            inverse_transform(&mut block, last, output, plane.stride);
                        }
                    }
                }
            }
            // Upsampling looks one row of samples ahead.
            let ready = if y + 1 == down { height } else { (y + 1) * 8 * rows - (rows - 1) };
            let ready = ready.min(part.top + part.height);
            if ready > converted {
                let planes = &self.planes[..header.component_count];
                let part = CropBox { top: converted, height: ready - converted, ..part };
                self.converter.convert(planes, header.colour == Colour::YCbCr, part, image)?;
                converted = ready;
            }
        }
        bits.within(begin).then_some(())
    }
}

impl Entropy {
    /// Copies the bytes of a scan that ends with the image.
    fn collect(&mut self, scan: &[u8]) -> Option<()> {
        self.bytes.clear();
        self.ends.clear();
        let mut rest = scan;
        loop {
            let escape = memchr::memchr(0xff, rest)?;
            self.bytes.extend_from_slice(&rest[..escape]);
            match rest.get(escape + 1)? {
                0x00 => {
                    self.bytes.push(0xff);
                    rest = &rest[escape + 2..];
                }
                // A fill byte in front of a marker.
                0xff => rest = &rest[escape + 1..],
                0xd0..=0xd7 => {
                    self.ends.push(self.bytes.len());
                    rest = &rest[escape + 2..];
                }
                0xd9 => {
                    self.ends.push(self.bytes.len());
                    // Eight bytes are read at once, up to seven of them ahead of need.
                    self.bytes.extend_from_slice(&[0; 16]);
                    return Some(());
                }
                _ => return None,
            }
        }
    }
}

impl Header {
    fn components(&self) -> &[Component] {
        &self.components[..self.component_count]
    }

    fn read_frame(&mut self, body: &[u8]) -> Option<()> {
        let &[8, h0, h1, w0, w1, count, ref components @ ..] = body else { return None };
        self.height = usize::from(u16::from_be_bytes([h0, h1]));
        self.width = usize::from(u16::from_be_bytes([w0, w1]));
        if self.width == 0 || self.height == 0 || components.len() != usize::from(count) * 3 {
            return None;
        }
        self.component_count = usize::from(count);
        let read = self.components.get_mut(..usize::from(count))?;
        for (component, bytes) in read.iter_mut().zip(components.chunks_exact(3)) {
            *component = Component {
                id: bytes[0],
                horizontal: usize::from(bytes[1] >> 4),
                vertical: usize::from(bytes[1] & 15),
                quantisation: usize::from(bytes[2]),
                ..Component::default()
            };
            if component.quantisation > 3 {
                return None;
            }
        }
        // The samplings that are in use; a lone component has no use for any.
        match read {
            [grey] => (grey.horizontal, grey.vertical) = (1, 1),
            [luma, blue, red] => {
                let twice = |side| matches!(side, 1 | 2);
                let once = |chroma: &Component| chroma.horizontal == 1 && chroma.vertical == 1;
                if !(twice(luma.horizontal) && twice(luma.vertical) && once(blue) && once(red)) {
                    return None;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn read_quantisation(&mut self, mut body: &[u8], seen: &mut [bool; 4]) -> Option<()> {
        while let Some((&slot, rest)) = body.split_first() {
            let Quantisation(table) = self.quantisation.get_mut(usize::from(slot & 15))?;
            let used = match slot >> 4 {
                0 => {
                    let values = rest.get(..64)?;
                    table.iter_mut().zip(values).for_each(|(to, &from)| *to = from.into());
                    64
                }
                1 => {
                    let values = rest.get(..128)?.chunks_exact(2);
                    let pairs = values.map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                    table.iter_mut().zip(pairs).for_each(|(to, from)| *to = from);
                    128
                }
                _ => return None,
            };
            seen[usize::from(slot & 15)] = true;
            body = &rest[used..];
        }
        Some(())
    }

    /// One scan of all components and all coefficients.
    fn read_scan(&mut self, body: &[u8]) -> Option<()> {
        let (&count, rest) = body.split_first()?;
        let count = usize::from(count);
        if count == 0 || count != self.component_count || rest.len() != 2 * count + 3 {
            return None;
        }
        for (component, named) in self.components.iter_mut().zip(rest[..2 * count].chunks_exact(2))
        {
            if component.id != named[0] {
                return None;
            }
            component.dc = usize::from(named[1] >> 4);
            component.ac = usize::from(named[1] & 15);
            if component.dc > 3 || component.ac > 3 {
                return None;
            }
        }
        (rest[2 * count..] == [0, 63, 0]).then_some(())
    }
}

/// The application markers that tell which colours three components are.
#[derive(Default)]
struct ColourMarkers {
    jfif: bool,
    adobe: Option<u8>,
}

impl ColourMarkers {
    /// As libjpeg decides.
    fn of(&self, components: &[Component]) -> Option<Colour> {
        let [first, second, third] = components else { return Some(Colour::YCbCr) };
        match (self.jfif, self.adobe) {
            (true, _) | (_, Some(1)) => Some(Colour::YCbCr),
            (_, Some(0)) => Some(Colour::Rgb),
            (_, Some(_)) => None,
            (false, None) => match [first.id, second.id, third.id] {
                [b'R', b'G', b'B'] => Some(Colour::Rgb),
                _ => Some(Colour::YCbCr),
            },
        }
    }
}
