//! From a schema to code.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Ident, LitStr};

use crate::schema::{Field, MessageSchema, Schema, Versions};

/// All that is derived from one struct. Its own names (`reader`, `version`) cannot meet a field's.
pub(crate) fn expand(schema: &Schema) -> TokenStream {
    let default = default_impl(schema);
    let message = schema
        .message
        .as_ref()
        .map(|message| message_impl(&schema.name, message));
    let wire = wire_impl(schema);
    let name = &schema.name;
    let random = cfg!(feature = "testing").then(|| random_impl(schema));
    quote! {
        #default
        #wire
        impl ::sapwood_kafka_wire::Nullable for #name {}
        #message
        #random
    }
}

fn default_impl(schema: &Schema) -> TokenStream {
    let name = &schema.name;
    let fields = schema.fields.iter().map(|field| {
        let name = &field.name;
        let default = default_value(field);
        quote!(#name: #default)
    });
    quote! {
        impl ::core::default::Default for #name {
            fn default() -> Self {
                Self { #(#fields),* }
            }
        }
    }
}

fn message_impl(name: &Ident, message: &MessageSchema) -> TokenStream {
    let MessageSchema {
        key,
        versions,
        flexible,
        response,
    } = message;
    let (first, last) = (versions.first, versions.last);
    let flexible = match flexible {
        Some(first) => quote!(::core::option::Option::Some(#first)),
        None => quote!(::core::option::Option::None),
    };
    let request = response.as_ref().map(|response| {
        quote! {
            impl ::sapwood_kafka_wire::Request for #name {
                type Response = #response;
            }
        }
    });
    quote! {
        impl ::sapwood_kafka_wire::Message for #name {
            const KEY: i16 = #key;
            const VERSIONS: ::core::ops::RangeInclusive<i16> = #first..=#last;
            const FLEXIBLE_FROM: ::core::option::Option<i16> = #flexible;
        }
        #request
    }
}

fn wire_impl(schema: &Schema) -> TokenStream {
    let name = &schema.name;
    let least = schema.fields.iter().filter_map(|field| {
        // Only what every version writes.
        let ty = &field.ty;
        let always = field.tag.is_none() && field.versions == Versions::ALL;
        always.then(|| quote!(+ <#ty as ::sapwood_kafka_wire::Wire>::MIN_BYTES))
    });
    let least = quote!(0 #(#least)*);
    let decode = decode_body(schema);
    let encode = encode_body(schema);
    quote_spanned! {Span::mixed_site()=>
        impl ::sapwood_kafka_wire::Wire for #name {
            const MIN_BYTES: usize = #least;

            fn decode(
                reader: &mut ::sapwood_kafka_wire::Reader,
                version: i16,
            ) -> ::core::result::Result<Self, ::sapwood_kafka_wire::DecodeError> {
                #decode
            }

            fn encode(
                &self,
                writer: &mut ::sapwood_kafka_wire::Writer,
                version: i16,
            ) -> ::core::result::Result<(), ::sapwood_kafka_wire::EncodeError> {
                #encode
            }
        }
    }
}

fn decode_body(schema: &Schema) -> TokenStream {
    let span = Span::mixed_site();
    let begin = schema.message.as_ref().map(|_| {
        quote_spanned! {span=> reader.begin::<Self>(version)?; }
    });
    let plain = plain_fields(schema).map(|field| {
        let name = &field.name;
        let mut value = quote_spanned! {span=>
            ::sapwood_kafka_wire::Wire::decode(reader, version)?
        };
        if let Some(nullable) = condition(field.nullable) {
            value = quote_spanned! {span=>
                if #nullable { #value } else {
                    ::core::option::Option::Some(::sapwood_kafka_wire::Wire::decode(reader, version)?)
                }
            };
        }
        if let Some(present) = condition(field.versions) {
            let default = default_value(field);
            value = quote_spanned! {span=> if #present { #value } else { #default } };
        }
        let ty = &field.ty;
        quote_spanned! {span=> let #name: #ty = #value; }
    });
    let names = schema.fields.iter().map(|field| &field.name);
    let tagged = tagged_fields(schema);
    let tags = if tagged.is_empty() {
        quote_spanned! {span=> reader.skip_tags()?; }
    } else {
        let defaults = tagged.iter().map(|(_, field)| {
            let (name, ty, default) = (&field.name, &field.ty, default_value(field));
            quote_spanned! {span=> let mut #name: #ty = #default; }
        });
        let arms = tagged.iter().map(|(tag, field)| {
            let name = &field.name;
            let guard = condition(field.versions).map(|present| quote!(if #present));
            quote_spanned! {span=>
                #tag #guard => #name = ::sapwood_kafka_wire::Wire::decode(reader, version)?,
            }
        });
        quote_spanned! {span=>
            #(#defaults)*
            let mut tags = reader.tags()?;
            while let ::core::option::Option::Some(tag) = tags.next(reader)? {
                match tag {
                    #(#arms)*
                    _ => reader.skip_rest(),
                }
            }
        }
    };
    quote_spanned! {span=>
        #begin
        #(#plain)*
        #tags
        ::core::result::Result::Ok(Self { #(#names),* })
    }
}

fn encode_body(schema: &Schema) -> TokenStream {
    let span = Span::mixed_site();
    let begin = schema.message.as_ref().map(|_| {
        quote_spanned! {span=> writer.begin::<Self>(version)?; }
    });
    let plain = plain_fields(schema).map(|field| {
        let name = &field.name;
        let mut write = quote_spanned! {span=>
            ::sapwood_kafka_wire::Wire::encode(&self.#name, writer, version)?;
        };
        if let Some(nullable) = condition(field.nullable) {
            let shown = LitStr::new(&format!("{}.{name}", schema.name), name.span());
            write = quote_spanned! {span=>
                if #nullable { #write } else {
                    let value = ::sapwood_kafka_wire::not_null(&self.#name, #shown)?;
                    ::sapwood_kafka_wire::Wire::encode(value, writer, version)?;
                }
            };
        }
        match condition(field.versions) {
            Some(present) => quote_spanned! {span=> if #present { #write } },
            None => write,
        }
    });
    let tagged = tagged_fields(schema);
    let tags = if tagged.is_empty() {
        quote_spanned! {span=> writer.no_tags(); }
    } else {
        let puts = tagged.iter().map(|(tag, field)| {
            let (name, ty, default) = (&field.name, &field.ty, default_value(field));
            let present = condition(field.versions).map(|present| quote!(#present &&));
            quote_spanned! {span=>
                if #present self.#name != { let default: #ty = #default; default } {
                    tags.put(#tag, &self.#name, version)?;
                }
            }
        });
        quote_spanned! {span=>
            let mut tags = ::sapwood_kafka_wire::TaggedFields::new();
            #(#puts)*
            writer.tags(tags);
        }
    };
    quote_spanned! {span=>
        #begin
        #(#plain)*
        #tags
        ::core::result::Result::Ok(())
    }
}

/// For tests: random values of what a version has, defaults of what it lacks.
fn random_impl(schema: &Schema) -> TokenStream {
    let span = Span::mixed_site();
    let name = &schema.name;
    let fields = schema.fields.iter().map(|field| {
        let name = &field.name;
        let mut value = quote_spanned! {span=>
            ::sapwood_kafka_wire::testing::Random::random(random, version)
        };
        if let Some(nullable) = condition(field.nullable) {
            value = quote_spanned! {span=>
                if #nullable { #value } else {
                    ::core::option::Option::Some(
                        ::sapwood_kafka_wire::testing::Random::random(random, version)
                    )
                }
            };
        }
        let mut present = condition(field.versions);
        if field.tag.is_some() {
            let others = present.map(|present| quote!(&& #present));
            present = Some(quote_spanned! {span=> random.coin() #others });
        }
        if let Some(present) = present {
            let default = default_value(field);
            value = quote_spanned! {span=> if #present { #value } else { #default } };
        }
        quote!(#name: #value)
    });
    quote_spanned! {span=>
        impl ::sapwood_kafka_wire::testing::Random for #name {
            fn random(random: &mut ::sapwood_kafka_wire::testing::Source, version: i16) -> Self {
                Self { #(#fields),* }
            }
        }
    }
}

/// The fields that are not tagged, in their order.
fn plain_fields(schema: &Schema) -> impl Iterator<Item = &Field> {
    schema.fields.iter().filter(|field| field.tag.is_none())
}

/// The tagged fields by their tags.
fn tagged_fields(schema: &Schema) -> Vec<(u32, &Field)> {
    let fields = schema.fields.iter();
    let mut tagged: Vec<_> = fields
        .filter_map(|field| field.tag.map(|tag| (tag, field)))
        .collect();
    tagged.sort_by_key(|(tag, _)| *tag);
    tagged
}

fn default_value(field: &Field) -> TokenStream {
    match &field.default {
        Some(value) => quote!(#value),
        None => quote!(::core::default::Default::default()),
    }
}

/// `version >= 4`, or nothing when every version is in the range.
fn condition(versions: Versions) -> Option<TokenStream> {
    let version = Ident::new("version", Span::mixed_site());
    match (versions.first.filter(|first| *first > 0), versions.last) {
        (None, None) => None,
        (Some(first), None) => Some(quote!(#version >= #first)),
        (None, Some(last)) => Some(quote!(#version <= #last)),
        (Some(first), Some(last)) if first == last => Some(quote!(#version == #first)),
        (Some(first), Some(last)) => Some(quote!((#first..=#last).contains(&#version))),
    }
}
