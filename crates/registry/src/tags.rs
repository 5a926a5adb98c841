//! Lists of tags, page by page.

use coracle_codec::oci::Repository;
use reqwest::Method;
use reqwest::header::LINK;
use serde::Deserialize;
use url::Url;

use crate::config::Place;
use crate::http::{Body, Request, To, host_of, scope};
use crate::range::next_link;
use crate::{Client, Error};

/// Tags asked for at once.
const PAGE: u32 = 1000;
/// Bytes of one page.
const MAX_PAGE: usize = 16 << 20;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags of a repository, in the order of the registry. Empty means that the registry says so.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such repository; [`Error`].
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<String>, Error> {
        let place = self.target(repository)?;
        let what = format!("{repository}: tags");
        let first = format!("{}/tags/list?n={PAGE}", place.path);
        let mut tags = Vec::new();
        let pages = self.pages(&place, &what, first, |body| {
            let page: Page = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
            tags.extend(page.tags.unwrap_or_default());
            Ok(())
        });
        pages.await?;
        Ok(tags)
    }

    /// Fetches a list of pages that are linked with `Link` (distribution-spec 1.1, "Listing Tags").
    pub(crate) async fn pages(
        &self,
        place: &Place,
        what: &str,
        first: String,
        mut use_page: impl FnMut(Vec<u8>) -> Result<(), String>,
    ) -> Result<(), Error> {
        let protocol =
            |reason: String| Error::Protocol { what: what.to_owned(), host: place.host.clone(), reason };
        let mut next: Option<Url> = None;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..self.settings().max_pages {
            let to = match &next {
                Some(url) => To::Url(url),
                None => To::Path(first.clone()),
            };
            let request = Request::new(Method::GET, what, to, scope(&place.path, "pull"));
            let answer = self.send(place, &request).await?;
            if !answer.status().is_success() {
                return Err(self.failure(answer, what, place).await);
            }
            let link = answer.headers().get(LINK).and_then(|value| value.to_str().ok());
            let link = link.and_then(next_link).map(|target| answer.url().join(target));
            let body = Body::new(answer, self, what, &place.host).read_all(MAX_PAGE).await?;
            use_page(body).map_err(|e| protocol(format!("a page that is not understood: {e}")))?;
            match link {
                None => return Ok(()),
                Some(Err(e)) => return Err(protocol(format!("link to the next page: {e}"))),
                Some(Ok(url)) => {
                    // A list that leads elsewhere, or round in circles, is no list.
                    if host_of(&url).as_deref() != Some(place.host.as_str()) {
                        return Err(protocol(format!("the next page is on another host: {url}")));
                    }
                    if !seen.insert(url.clone()) {
                        return Err(protocol("pages link to each other in a circle".into()));
                    }
                    next = Some(url);
                }
            }
        }
        Err(protocol(format!("more than {} pages", self.settings().max_pages)))
    }
}
