//! The OpenAPI document, made from the table of routes, the shapes of the bodies and the answers' types.

use std::sync::OnceLock;

use axum::routing::MethodFilter;
use utoipa::ToSchema;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ComponentsBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder, Schema,
};

use super::answer::{
    AcceptedBody, BatchAcceptedBody, BatchBody, BatchCanceledBody, CampaignBody, FoundBody, PageBody,
    ParkedBody, ParkedPageBody, RefusedItem, ReleasedBody, StatusBody,
};
use super::problem::ProblemBody;
use super::routes::{Row, table};
use crate::domain::WaitReason;
use crate::domain::ids::ID_BYTES_MAX;
use crate::domain::money::AMOUNT_MAX;
use crate::request::fault::{Fault, FaultCode};
use crate::request::shape::{self, BATCH_ITEMS_MAX, Field, Form, LOOKUP_IDS_MAX, Shape};

/// The document as JSON, made once.
pub fn document() -> &'static [u8] {
    static DOCUMENT: OnceLock<Vec<u8>> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::to_vec(&build()).expect("the document has only string keys"))
}

pub fn build() -> OpenApi {
    let mut paths = PathsBuilder::new();
    for row in table() {
        paths = paths.path(row.path, PathItem::new(method(row.method), operation(&row)));
    }
    let info = InfoBuilder::new()
        .title("hongbao")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Accepts payouts durably and settles them later, exactly once. On anything but a final state, \
             retry with the same id.",
        ))
        .build();
    OpenApiBuilder::new().info(info).paths(paths.build()).components(Some(components().build())).build()
}

fn method(filter: MethodFilter) -> HttpMethod {
    match filter {
        MethodFilter::GET => HttpMethod::Get,
        MethodFilter::PUT => HttpMethod::Put,
        _ => HttpMethod::Post,
    }
}

fn operation(row: &Row) -> OperationBuilder {
    let mut operation = OperationBuilder::new().summary(Some(row.summary));
    if row.path.contains("{id}") {
        operation = operation.parameter(
            ParameterBuilder::new()
                .name("id")
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(form(Form::Id, ""))),
        );
    }
    for (name, says) in row.filters {
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(*name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(*says))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String).build())),
        );
    }
    if let Some(shape) = row.takes.filter(|shape| !shape.fields.is_empty()) {
        let content = Content::new(Some(reference(shape.name)));
        let body = RequestBodyBuilder::new().content("application/json", content);
        operation = operation.request_body(Some(body.required(Some(Required::True)).build()));
    }
    for (code, name) in row.answers {
        let mut response = ResponseBuilder::new().description(row.summary);
        if let Some(name) = name {
            response = response.content("application/json", Content::new(Some(reference(name))));
        }
        operation = operation.response(code.to_string(), response.build());
    }
    if row.path.starts_with("/v1/") {
        let problem = Content::new(Some(reference("Problem")));
        let response = ResponseBuilder::new()
            .description("Any refusal")
            .content("application/problem+json", problem)
            .build();
        let scopes: [&str; 0] = [];
        operation =
            operation.response("default", response).security(SecurityRequirement::new("client", scopes));
    }
    operation
}

fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

fn components() -> ComponentsBuilder {
    let mut components = ComponentsBuilder::new().security_scheme(
        "client",
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
    );
    for shape in shape::ALL {
        components = components.schema(shape.name, object(shape));
    }
    fn add<T: ToSchema>(components: ComponentsBuilder) -> ComponentsBuilder {
        components.schema_from::<T>()
    }
    let answers = [
        add::<StatusBody>,
        add::<AcceptedBody>,
        add::<BatchAcceptedBody>,
        add::<BatchBody>,
        add::<BatchCanceledBody>,
        add::<CampaignBody>,
        add::<PageBody>,
        add::<FoundBody>,
        add::<ParkedBody>,
        add::<ParkedPageBody>,
        add::<ReleasedBody>,
        add::<ProblemBody>,
        add::<RefusedItem>,
        add::<Fault>,
        add::<FaultCode>,
    ];
    answers.into_iter().fold(components, |components, add| add(components))
}

fn object(shape: &Shape) -> Schema {
    let mut object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    for Field { name, required, form: of, says } in shape.fields {
        object = object.property(*name, form(*of, says));
        if *required {
            object = object.required(*name);
        }
    }
    Schema::Object(object.build())
}

fn form(form: Form, says: &str) -> RefOr<Schema> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let whole = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    let object = match form {
        Form::Id => id_schema(),
        Form::Text(bytes_max) => text().max_length(Some(bytes_max)),
        Form::Currency => text().pattern(Some("^[A-Z]{3}$")),
        Form::Lane => text().enum_values(Some(["realtime", "bulk"])),
        Form::Reason => text().enum_values(Some(WaitReason::PARKED.map(|reason| reason.as_str()))),
        Form::Time => text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))),
        Form::Amount => whole()
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .maximum(Some(AMOUNT_MAX as i64)),
        Form::Count => whole().maximum(Some(i64::from(u32::MAX))),
        Form::Object(_) => ObjectBuilder::new().schema_type(Type::Object),
        Form::Ids => return array(id_schema().build(), LOOKUP_IDS_MAX, says),
        Form::Items => return array(reference(shape::ITEM.name), BATCH_ITEMS_MAX, says),
    };
    let says = (!says.is_empty()).then_some(says);
    RefOr::T(Schema::Object(object.description(says).build()))
}

fn id_schema() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(ID_BYTES_MAX))
        .pattern(Some("^[A-Za-z0-9_.:@+=/-]+$"))
}

fn array(items: impl Into<RefOr<Schema>>, items_max: usize, says: &str) -> RefOr<Schema> {
    let array = ArrayBuilder::new().items(items.into()).max_items(Some(items_max)).description(Some(says));
    RefOr::T(Schema::Array(array.build()))
}
