//! A sample assortment, so that a new cluster has something to sell.

use stock_client::{Client, Error, v1 as api};

/// How much there is.
pub(super) struct Sample {
    pub(super) skus: usize,
    pub(super) locations: usize,
}

/// A location that has every SKU, for examples.
pub(super) const SHOWN_LOCATION: &str = "WH-DUISBURG";

struct Place {
    id: &'static str,
    name: &'static str,
    latitude: f64,
    longitude: f64,
}

const WAREHOUSES: &[Place] = &[
    place("WH-DUISBURG", "Central warehouse Duisburg", 51.4556, 6.7628),
    place("WH-LINZ", "Warehouse south, Linz", 48.2858, 14.3289),
];

const STORES: &[Place] = &[
    place(
        "ST-BERLIN-MITTE",
        "Berlin, Friedrichstra\u{df}e",
        52.5145,
        13.3888,
    ),
    place(
        "ST-HAMBURG",
        "Hamburg, M\u{f6}nckebergstra\u{df}e",
        53.5511,
        10.0011,
    ),
    place(
        "ST-MUENCHEN",
        "M\u{fc}nchen, Kaufingerstra\u{df}e",
        48.1382,
        11.5716,
    ),
    place("ST-KOELN", "K\u{f6}ln, Schildergasse", 50.9367, 6.9506),
    place("ST-FRANKFURT", "Frankfurt, Zeil", 50.1147, 8.6849),
    place(
        "ST-STUTTGART",
        "Stuttgart, K\u{f6}nigstra\u{df}e",
        48.7784,
        9.1775,
    ),
    place("ST-WIEN", "Wien, Mariahilfer Stra\u{df}e", 48.1986, 16.3506),
    place("ST-ZUERICH", "Z\u{fc}rich, Bahnhofstrasse", 47.3735, 8.5390),
    place("ST-AMSTERDAM", "Amsterdam, Kalverstraat", 52.3702, 4.8917),
    place("ST-ANTWERPEN", "Antwerpen, Meir", 51.2180, 4.4080),
];

const fn place(id: &'static str, name: &'static str, latitude: f64, longitude: f64) -> Place {
    Place {
        id,
        name,
        latitude,
        longitude,
    }
}

/// Product families and what each comes in.
const PRODUCTS: &[(&str, &[&str])] = &[
    ("MUG-STONE", COLOURS),
    ("BOWL-STONE", COLOURS),
    ("PLATE-STONE", COLOURS),
    ("TOWEL-LINEN", COLOURS),
    ("APRON-DENIM", COLOURS),
    ("LAMP-DESK", COLOURS),
    ("CUSHION-WOOL", COLOURS),
    ("BLANKET-WOOL", COLOURS),
    ("UMBRELLA-FOLD", COLOURS),
    ("BOTTLE-STEEL-750ML", COLOURS),
    ("TSHIRT-ORGANIC-WHITE", SIZES),
    ("TSHIRT-ORGANIC-BLACK", SIZES),
    ("SHIRT-OXFORD", SIZES),
    ("SWEATER-MERINO", SIZES),
    ("JACKET-RAIN", SIZES),
    ("JEANS-SLIM", SIZES),
    ("DRESS-WRAP", SIZES),
    ("COAT-WINTER", SIZES),
    ("SNEAKER-CANVAS", SHOES),
    ("BOOT-LEATHER", SHOES),
    ("SANDAL-CORK", SHOES),
    ("HEADPHONES-BT", COLOURS),
    ("SPEAKER-MINI", COLOURS),
    ("CASE-PHONE", COLOURS),
    ("NOTEBOOK-A5", COLOURS),
];
const COLOURS: &[&str] = &[
    "BLUE", "GREEN", "RED", "SAND", "GREY", "BLACK", "WHITE", "ROSE",
];
const SIZES: &[&str] = &["XXS", "XS", "S", "M", "L", "XL", "XXL", "3XL"];
const SHOES: &[&str] = &["37", "38", "39", "40", "41", "42", "43", "44"];

/// Loads the sample into a cluster that has no location yet; nothing if it has.
pub(super) async fn load_if_empty(client: &Client) -> Result<Option<Sample>, Error> {
    if !client.list_locations().await?.locations.is_empty() {
        return Ok(None);
    }
    for (places, kind) in [
        (WAREHOUSES, api::location::Type::Warehouse),
        (STORES, api::location::Type::Store),
    ] {
        for place in places {
            let location = Some(location(place, kind));
            let request = api::PutLocationRequest {
                location,
                ..Default::default()
            };
            client.put_location(request).await?;
        }
    }
    let skus: Vec<String> = PRODUCTS
        .iter()
        .flat_map(|(product, variants)| variants.iter().map(move |v| format!("{product}-{v}")))
        .collect();
    for place in WAREHOUSES.iter().chain(STORES) {
        let receipts = receipts(place, &skus);
        client.record_receipts(vec![receipts]).await?;
    }
    Ok(Some(Sample {
        skus: skus.len(),
        locations: WAREHOUSES.len() + STORES.len(),
    }))
}

fn location(place: &Place, kind: api::location::Type) -> api::Location {
    api::Location {
        location_id: place.id.to_owned(),
        r#type: kind.into(),
        name: place.name.to_owned(),
        coordinates: Some(api::Coordinates {
            latitude: place.latitude,
            longitude: place.longitude,
        }),
        gln: None,
    }
}

/// One delivery for each location. Warehouses have a lot of everything, stores a few of most
/// things.
fn receipts(place: &Place, skus: &[String]) -> api::RecordReceiptsRequest {
    let is_warehouse = place.id.starts_with("WH-");
    let lines = skus.iter().enumerate().filter_map(|(number, sku)| {
        let draw = xxhash_rust::xxh3::xxh3_64(format!("{sku}@{}", place.id).as_bytes());
        let quantity = match is_warehouse {
            true => 200 + draw % 1_800,
            false if draw.is_multiple_of(7) => return None,
            false => 1 + draw % 24,
        };
        Some(api::MovementLine {
            line: number.to_string(),
            sku: sku.clone(),
            location: place.id.to_owned(),
            quantity: quantity as i64,
            occurred_at: Some(stock_client::now()),
        })
    });
    api::RecordReceiptsRequest {
        source: None,
        document: format!("SAMPLE-{}", place.id),
        lines: lines.collect(),
    }
}
