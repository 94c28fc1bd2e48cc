//! A page whose measured parts are written by the program that measures.
//!
//! Prose stands in the page as people wrote it. Between `<!-- measured: NAME -->` and `<!-- end -->` stands what was measured last, and
//! only that is replaced.

/// A page without a place for what was measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page has no part `<!-- measured: {0} -->` that ends with `<!-- end -->`")]
pub struct NoSuchPart(String);

/// The page with the part `name` replaced by `content`.
///
/// # Errors
/// The page has no such part.
pub fn replace_part(page: &str, name: &str, content: &str) -> Result<String, NoSuchPart> {
    let begin = format!("<!-- measured: {name} -->");
    let missing = || NoSuchPart(name.to_owned());
    let (before, rest) = page.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{begin}\n{}\n{END}{after}", content.trim()))
}

const END: &str = "<!-- end -->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_is_replaced() {
        let page = "a\n<!-- measured: one -->\nold\n<!-- end -->\nb\n<!-- measured: two -->\n<!-- end -->\nc";
        let page = replace_part(page, "one", "new\n").unwrap();
        assert_eq!(
            page,
            "a\n<!-- measured: one -->\nnew\n<!-- end -->\nb\n<!-- measured: two -->\n<!-- end -->\nc"
        );
        let page = replace_part(&page, "two", "more").unwrap();
        assert!(page.ends_with("<!-- measured: two -->\nmore\n<!-- end -->\nc"));
    }

    #[test]
    fn a_part_that_is_missing_is_named() {
        let missing = replace_part("<!-- measured: one -->", "two", "").unwrap_err();
        assert!(missing.to_string().contains("measured: two"));
        assert!(
            replace_part("<!-- measured: one -->", "one", "").is_err(),
            "it does not end"
        );
    }
}
