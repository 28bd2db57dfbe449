//! One definition per setting: name, type, default, help, allowed values, and whether a run may go on
//! with another value.
//!
//! [`settings!`](crate::settings!) makes a struct of such definitions, which serde reads and writes
//! under the settings' names, and lists them as [`Setting`]s, from which a program makes flags, help
//! and tables of documentation without naming a single one. [`names!`](crate::names!) makes an enum
//! whose variants have names, from one list. Nothing here knows a command line or a file format.
//!
//! ```
//! protonce_images::names! {
//!     /// Coat of an animal.
//!     pub enum Coat: "coat" {
//!         /// No pattern.
//!         Plain = "plain",
//!         /// Stripes all over.
//!         Striped = "striped",
//!     }
//! }
//! protonce_images::settings! {
//!     /// What an animal is like.
//!     pub struct Animal {
//!         ["Looks"]
//!         /// Pattern of the coat. Stripes hide best in tall grass.
//!         coat: Coat = Coat::Plain;
//!
//!         /// Length of the tail in centimetres.
//!         tail_length: f64 = 30.0, shown_as("CM"), not_negative();
//!     }
//! }
//!
//! let tail = &Animal::settings()[1];
//! assert_eq!((tail.name.as_str(), tail.placeholder.as_str()), ("tail-length", "CM"));
//! assert_eq!(Animal::settings()[0].names, ["plain", "striped"]);
//! let error = Animal { tail_length: -1.0, ..Animal::default() }.check_each().unwrap_err();
//! assert_eq!(error.to_string(), "\"tail-length\" is -1: expected 0 or more");
//! let error = "dotted".parse::<Coat>().unwrap_err();
//! assert_eq!(error.to_string(), "unknown coat \"dotted\": expected one of plain, striped");
//! ```

/// What is known about one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name in files; `--name` as a flag.
    pub name: String,
    /// What it belongs to: a heading in help and documentation.
    pub heading: &'static str,
    /// What it does and why one would change it: the first paragraph of its documentation.
    pub help: String,
    /// What is typed as its value.
    pub kind: Kind,
    /// Stands for the value in help; empty where there is none to type.
    pub placeholder: String,
    /// The names it can have, for [`Kind::Name`]; empty for other kinds.
    pub names: Vec<String>,
    /// Whether it is an argument by position and not a flag.
    pub positional: bool,
    /// Whether a run may go on with another value.
    pub changeable: bool,
}

/// What is typed as the value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the flag stands for `true`.
    Flag,
    /// An integer.
    Integer,
    /// A number.
    Number,
    /// Any text.
    Text,
    /// One of a few names.
    Name,
    /// Integers separated by commas.
    Integers,
    /// Numbers separated by commas.
    Numbers,
    /// `auto`, or integers separated by commas.
    AutoOrIntegers,
}

/// A type that settings have.
pub trait SettingValue: Sized + 'static {
    /// What is typed for a value of this type.
    const KIND: Kind;

    /// The value as messages show it.
    fn shown(&self) -> String;

    /// Whether it holds neither an infinity nor something that is not a number.
    fn is_finite(&self) -> bool {
        true
    }

    /// Every value, for [`Kind::Name`].
    fn all() -> &'static [Self] {
        &[]
    }
}

macro_rules! setting_value {
    ($($type:ty: $kind:ident, $format:literal $(, $is_finite:expr)?;)+) => {$(
        impl SettingValue for $type {
            const KIND: Kind = Kind::$kind;

            fn shown(&self) -> String {
                format!($format, self)
            }
            $(
                fn is_finite(&self) -> bool {
                    let is_finite: fn(&Self) -> bool = $is_finite;
                    is_finite(self)
                }
            )?
        }
    )+};
}
setting_value! {
    bool: Flag, "{}";
    u8: Integer, "{}";
    u64: Integer, "{}";
    usize: Integer, "{}";
    i64: Integer, "{}";
    f64: Number, "{}", |value| f64::is_finite(*value);
    String: Text, "{:?}";
    Vec<usize>: Integers, "{:?}";
}

impl<const N: usize> SettingValue for [f64; N] {
    const KIND: Kind = Kind::Numbers;

    fn shown(&self) -> String {
        format!("{self:?}")
    }

    fn is_finite(&self) -> bool {
        self.iter().all(|value| value.is_finite())
    }
}

/// What holds for one setting of type `T`: in [`settings!`](crate::settings!), the calls that follow
/// its default.
pub struct Rule<T> {
    name: Option<&'static str>,
    placeholder: &'static str,
    expected: &'static str,
    holds: fn(&T) -> bool,
    positional: bool,
    changeable: bool,
}

impl<T: SettingValue> Rule<T> {
    /// The rule of a setting that can have every (finite) value of its type, and keeps it as long as a
    /// run lasts.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Rule<T> {
        Rule {
            name: None,
            placeholder: "",
            expected: "a finite number",
            holds: |_| true,
            positional: false,
            changeable: false,
        }
    }

    /// The setting's name, where it is not that of the field; serde has to be told, too.
    pub fn named(self, name: &'static str) -> Rule<T> {
        Rule { name: Some(name), ..self }
    }

    /// Stands for the value in help.
    pub fn shown_as(self, placeholder: &'static str) -> Rule<T> {
        Rule { placeholder, ..self }
    }

    /// Only values for which `holds`; `expected` says which these are.
    pub fn expect(self, expected: &'static str, holds: fn(&T) -> bool) -> Rule<T> {
        Rule { expected, holds, ..self }
    }

    /// More than 0.
    pub fn positive(self) -> Rule<T>
    where
        T: PartialOrd + From<u8>,
    {
        self.expect("more than 0", |value| *value > T::from(0))
    }

    /// 0 or more.
    pub fn not_negative(self) -> Rule<T>
    where
        T: PartialOrd + From<u8>,
    {
        self.expect("0 or more", |value| *value >= T::from(0))
    }

    /// A share of a whole.
    pub fn share(self) -> Rule<T>
    where
        T: PartialOrd + From<u8>,
    {
        self.expect("between 0 and 1", |value| (T::from(0)..=T::from(1)).contains(value))
    }

    /// It is an argument by position, not a flag.
    pub fn positional(self) -> Rule<T> {
        Rule { positional: true, ..self }
    }

    /// A run may go on with another value: the setting decides how fast it goes or what it writes, or
    /// is changed on purpose, but says nothing of what a finished step was.
    pub fn changeable(self) -> Rule<T> {
        Rule { changeable: true, ..self }
    }

    fn name_for(&self, field: &str) -> String {
        self.name.map_or_else(|| field.replace('_', "-"), str::to_owned)
    }

    /// The setting that `field`, documented by `docs`, has this rule for.
    pub fn setting(self, field: &str, heading: &'static str, docs: &str) -> Setting {
        let name = self.name_for(field);
        let lines = docs.lines().map(str::trim).take_while(|line| !line.is_empty());
        let help = lines.collect::<Vec<_>>().join(" ");
        let placeholder = match (self.placeholder, T::KIND) {
            ("", Kind::Name) => name.to_uppercase(),
            (given, _) => given.to_owned(),
        };
        let allowed = T::all().iter().filter(|value| (self.holds)(value));
        Setting {
            heading,
            help,
            kind: T::KIND,
            placeholder,
            names: allowed.map(SettingValue::shown).collect(),
            positional: self.positional,
            changeable: self.changeable,
            name,
        }
    }

    /// Checks the `value` of `field`.
    ///
    /// # Errors
    /// Says what was expected when the value does not fit.
    pub fn check(self, field: &str, value: &T) -> Result<(), OutOfRange> {
        if value.is_finite() && (self.holds)(value) {
            return Ok(());
        }
        let (name, found) = (self.name_for(field), value.shown());
        Err(OutOfRange { name, found, expected: self.expected })
    }
}

/// A setting that is out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{name}\" is {found}: expected {expected}")]
pub struct OutOfRange {
    /// Name of the setting.
    pub name: String,
    /// Its value.
    pub found: String,
    /// What it should be.
    pub expected: &'static str,
}

/// A name that is none of the known ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} \"{name}\": expected one of {expected}")]
pub struct UnknownName {
    /// What was being named.
    pub what: &'static str,
    /// What was typed.
    pub name: String,
    /// The names that exist.
    pub expected: String,
}

/// Defines a struct of settings; the [module](mod@crate::settings) shows how.
///
/// A heading in brackets is followed by the settings that belong under it. Each is written as
/// `field: Type = default, rule, rule;` where the rules are methods of
/// [`Rule`](crate::settings::Rule). The first paragraph of its documentation is its help. A
/// `#[serde(default)]` says what files that are older than the setting meant. `flatten field: Type;`
/// takes in another struct of settings, with its headings.
///
/// Besides the struct, with `Default` and serde's traits, this makes two functions: `settings()` lists
/// the definitions in order, `check_each()` checks every value by its own rule.
#[macro_export]
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        pub struct $config:ident {$(
            [$heading:literal]
            $(
                $(#[doc = $docs:literal])+
                $(#[serde($($serde:tt)*)])?
                $field:ident: $type:ty = $default:expr
                    $(, $rule:ident($($argument:expr),*))*;
            )+
            $(flatten $part:ident: $part_type:ty;)*
        )+}
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct $config {$(
            $(
                $(#[doc = $docs])+
                $(#[serde($($serde)*)])?
                pub $field: $type,
            )+
            $(
                #[doc = concat!("The settings of [`", stringify!($part_type), "`].")]
                #[serde(flatten)]
                pub $part: $part_type,
            )*
        )+}

        impl Default for $config {
            fn default() -> Self {
                $config {$(
                    $($field: $default,)+
                    $($part: <$part_type>::default(),)*
                )+}
            }
        }

        impl $config {
            /// The definitions of all settings, in the order in which they are written.
            pub fn settings() -> Vec<$crate::settings::Setting> {
                let mut settings = Vec::new();
                $(
                    $({
                        let rule = $crate::settings::Rule::<$type>::new()
                            $(.$rule($($argument),*))*;
                        let docs = concat!($($docs, "\n"),+);
                        settings.push(rule.setting(stringify!($field), $heading, docs));
                    })+
                    $(settings.extend(<$part_type>::settings());)*
                )+
                settings
            }

            /// Checks the value of every setting by its own rule.
            ///
            /// # Errors
            /// Names the first setting that is out of range and what it should be.
            pub fn check_each(&self) -> Result<(), $crate::settings::OutOfRange> {
                $(
                    $({
                        let rule = $crate::settings::Rule::<$type>::new()
                            $(.$rule($($argument),*))*;
                        rule.check(stringify!($field), &self.$field)?;
                    })+
                    $(self.$part.check_each()?;)*
                )+
                Ok(())
            }
        }
    };
}

/// Defines an enum whose variants have names; the [module](mod@crate::settings) shows how.
///
/// The names are what `Display` and serde write and what `FromStr` and serde read; `ALL` lists the
/// variants. After the enum's name stands what it is called in a message.
#[macro_export]
macro_rules! names {
    (
        $(#[$attribute:meta])*
        pub enum $type:ident: $what:literal {
            $($(#[$variant_attribute:meta])* $variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_attribute])* $variant,)+
        }

        impl $type {
            /// Every one.
            pub const ALL: [$type; [$($type::$variant),+].len()] = [$($type::$variant),+];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::settings::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                let known = $type::ALL.into_iter().find(|known| known.name() == name);
                known.ok_or_else(|| $crate::settings::UnknownName {
                    what: $what,
                    name: name.to_owned(),
                    expected: $type::ALL.map($type::name).join(", "),
                })
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(deserializer)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }

        impl $crate::settings::SettingValue for $type {
            const KIND: $crate::settings::Kind = $crate::settings::Kind::Name;

            fn shown(&self) -> String {
                self.name().to_owned()
            }

            fn all() -> &'static [Self] {
                &$type::ALL
            }
        }
    };
}
