//! From a struct's attributes to its schema.

use proc_macro2::{Ident, Span};
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, Fields, GenericArgument, LitInt, LitStr, Path,
    PathArguments, Result, Type, meta::ParseNestedMeta, spanned::Spanned,
};

/// A struct and its fields.
pub(crate) struct Schema {
    pub(crate) name: Ident,
    /// Of a message; a struct inside of one has none.
    pub(crate) message: Option<MessageSchema>,
    pub(crate) fields: Vec<Field>,
}

/// What only a message has.
pub(crate) struct MessageSchema {
    pub(crate) key: LitInt,
    pub(crate) versions: Versions,
    pub(crate) flexible: Option<LitInt>,
    pub(crate) response: Option<Path>,
}

/// One field.
pub(crate) struct Field {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    pub(crate) versions: Versions,
    /// The versions that can say null: all, unless the field is an `Option` with a limit.
    pub(crate) nullable: Versions,
    pub(crate) default: Option<Expr>,
    pub(crate) tag: Option<u32>,
}

/// A range of versions; `None` is no bound.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) first: Option<i16>,
    pub(crate) last: Option<i16>,
}

impl Schema {
    pub(crate) fn parse(input: &DeriveInput) -> Result<Self> {
        let Data::Struct(data) = &input.data else {
            return Err(Error::new(input.ident.span(), "only a struct is a schema"));
        };
        let Fields::Named(named) = &data.fields else {
            return Err(Error::new(input.ident.span(), "fields need names"));
        };
        if !input.generics.params.is_empty() {
            return Err(Error::new(
                input.generics.span(),
                "a schema has no parameters",
            ));
        }
        let fields: Result<Vec<Field>> = named.named.iter().map(Field::parse).collect();
        let fields = fields?;
        let mut tags: Vec<u32> = fields.iter().filter_map(|field| field.tag).collect();
        tags.sort_unstable();
        if tags.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::new(
                input.ident.span(),
                "two fields have the same tag",
            ));
        }
        let message = MessageSchema::parse(&input.attrs, input.ident.span())?;
        let flexible = message.as_ref().map(|message| message.flexible.is_some());
        if flexible == Some(false) && !tags.is_empty() {
            return Err(Error::new(
                input.ident.span(),
                "tagged fields need a flexible version",
            ));
        }
        Ok(Self {
            name: input.ident.clone(),
            message,
            fields,
        })
    }
}

impl MessageSchema {
    fn parse(attributes: &[Attribute], span: Span) -> Result<Option<Self>> {
        let (mut key, mut versions, mut flexible, mut response) = (None, None, None, None);
        let mut found = false;
        each_option(attributes, |meta| {
            found = true;
            if meta.path.is_ident("key") {
                key = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("versions") {
                versions = Some(Versions::parse(&meta.value()?.parse()?)?);
            } else if meta.path.is_ident("flexible") {
                flexible = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("response") {
                response = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error("not an option of a message"));
            }
            Ok(())
        })?;
        match (key, versions) {
            (Some(key), Some(versions)) if versions.first.is_some() && versions.last.is_some() => {
                Ok(Some(Self {
                    key,
                    versions,
                    flexible,
                    response,
                }))
            }
            _ if !found => Ok(None),
            _ => Err(Error::new(
                span,
                "a message needs key = 3 and versions = \"0-13\"",
            )),
        }
    }
}

impl Field {
    fn parse(field: &syn::Field) -> Result<Self> {
        let name = field.ident.clone();
        let name = name.ok_or_else(|| Error::new(field.span(), "fields need names"))?;
        let mut parsed = Self {
            name,
            ty: field.ty.clone(),
            versions: Versions::ALL,
            nullable: Versions::ALL,
            default: None,
            tag: None,
        };
        each_option(&field.attrs, |meta| {
            if meta.path.is_ident("versions") {
                parsed.versions = Versions::parse(&meta.value()?.parse()?)?;
            } else if meta.path.is_ident("nullable") {
                if option_of(&field.ty).is_none() {
                    return Err(meta.error("only an Option can be null"));
                }
                parsed.nullable = Versions::parse(&meta.value()?.parse()?)?;
            } else if meta.path.is_ident("default") {
                parsed.default = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("tag") {
                parsed.tag = Some(meta.value()?.parse::<LitInt>()?.base10_parse()?);
            } else {
                return Err(meta.error("not an option of a field"));
            }
            Ok(())
        })?;
        if parsed.tag.is_some() && parsed.nullable != Versions::ALL {
            return Err(Error::new(
                field.span(),
                "a tagged field can be null in all versions or in none",
            ));
        }
        Ok(parsed)
    }
}

impl Versions {
    /// No bounds.
    pub(crate) const ALL: Self = Self {
        first: None,
        last: None,
    };

    /// Reads Kafka's notation: `4+`, `0-12`, `3`.
    fn parse(text: &LitStr) -> Result<Self> {
        let value = text.value();
        let number = |part: &str| {
            let parsed: std::result::Result<i16, _> = part.parse();
            let wrong = || Error::new(text.span(), "versions look like 4+, 0-12 or 3");
            parsed.ok().filter(|number| *number >= 0).ok_or_else(wrong)
        };
        let (first, last) = if let Some(first) = value.strip_suffix('+') {
            (number(first)?, None)
        } else if let Some((first, last)) = value.split_once('-') {
            (number(first)?, Some(number(last)?))
        } else {
            (number(&value)?, Some(number(&value)?))
        };
        if last.is_some_and(|last| last < first) {
            return Err(Error::new(text.span(), "the range is empty"));
        }
        Ok(Self {
            // There is no version below 0 to keep out.
            first: Some(first),
            last,
        })
    }
}

/// Calls `take` with every option in the struct's or field's `#[kafka(...)]`.
fn each_option(
    attributes: &[Attribute],
    mut take: impl FnMut(ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    for attribute in attributes {
        if attribute.path().is_ident("kafka") {
            attribute.parse_nested_meta(&mut take)?;
        }
    }
    Ok(())
}

/// What an `Option` is of.
fn option_of(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) if last.ident == "Option" => Some(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(code: &str) -> std::result::Result<Schema, String> {
        let input: DeriveInput = syn::parse_str(code).unwrap();
        Schema::parse(&input).map_err(|error| error.to_string())
    }

    #[test]
    fn a_schema_that_means_nothing_is_refused() {
        for (code, error) in [
            ("enum A { B }", "only a struct is a schema"),
            ("struct A(u8);", "fields need names"),
            ("struct A<T> { a: T }", "a schema has no parameters"),
            (
                "#[kafka(key = 1)] struct A { a: i8 }",
                "a message needs key = 3 and versions = \"0-13\"",
            ),
            (
                "#[kafka(key = 1, versions = \"3+\")] struct A { a: i8 }",
                "a message needs key = 3 and versions = \"0-13\"",
            ),
            (
                "#[kafka(name = 1)] struct A { a: i8 }",
                "not an option of a message",
            ),
            (
                "struct A { #[kafka(version = 1)] a: i8 }",
                "not an option of a field",
            ),
            (
                "struct A { #[kafka(versions = \"2..3\")] a: i8 }",
                "versions look like 4+, 0-12 or 3",
            ),
            (
                "struct A { #[kafka(versions = \"3-2\")] a: i8 }",
                "the range is empty",
            ),
            (
                "struct A { #[kafka(nullable = \"3+\")] a: String }",
                "only an Option can be null",
            ),
            (
                "struct A { #[kafka(nullable = \"3+\", tag = 0)] a: Option<String> }",
                "a tagged field can be null in all versions or in none",
            ),
            (
                "struct A { #[kafka(tag = 1)] a: i8, #[kafka(tag = 1)] b: i8 }",
                "two fields have the same tag",
            ),
            (
                "#[kafka(key = 1, versions = \"0-1\")] struct A { #[kafka(tag = 1)] a: i8 }",
                "tagged fields need a flexible version",
            ),
        ] {
            assert_eq!(parse(code).err().as_deref(), Some(error), "{code}");
        }
    }

    #[test]
    fn versions_are_read_in_kafkas_notation() {
        for (text, first, last) in [
            ("4+", Some(4), None),
            ("0-12", Some(0), Some(12)),
            ("3", Some(3), Some(3)),
        ] {
            let versions = Versions::parse(&LitStr::new(text, Span::call_site())).unwrap();
            assert!(versions == Versions { first, last }, "{text}");
        }
    }
}
