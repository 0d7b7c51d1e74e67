//! XML of foreign programs, element by element. No entity is expanded and nothing outside is read.

use super::read_error;
use super::text::{bad, number};
use crate::base::{Error, Result};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::io::BufRead;

/// Deepest nesting: what these formats have is four.
const DEPTH: usize = 16;

/// What is met on the way.
pub enum Node<'x> {
    /// `<name attributes>`; an empty element is opened and closed.
    Open(&'x Element<'x>),
    /// Text inside, trimmed.
    Text(&'x str),
    /// `</name>`
    Close(&'x str),
}

/// An opened element.
pub struct Element<'x> {
    /// Its name.
    pub name: &'x str,
    start: &'x BytesStart<'x>,
}

impl Element<'_> {
    /// The number in an attribute, if it is there.
    pub fn number(&self, key: &str) -> Result<Option<u64>> {
        let wrong = |why: &dyn std::fmt::Display| bad(&format!("<{}> {key}: {why}", self.name));
        match self.start.try_get_attribute(key) {
            Ok(None) => Ok(None),
            Ok(Some(value)) => {
                let text = value.unescape_value().map_err(|e| wrong(&e))?;
                number(text.trim()).map(Some).map_err(|e| wrong(&e))
            }
            Err(e) => Err(wrong(&e)),
        }
    }

    /// The number in an attribute that must be there.
    pub fn needed(&self, key: &str) -> Result<u64> {
        self.number(key)?.ok_or_else(|| bad(&format!("<{}> has no {key}", self.name)))
    }
}

/// Walks through a document whose outermost element is one of `roots`.
pub fn walk(
    input: &mut dyn BufRead,
    roots: &[&str],
    take: &mut dyn FnMut(Node<'_>) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::from_reader(input);
    reader.config_mut().trim_text(true);
    let (mut buf, mut depth, mut seen) = (Vec::new(), 0, false);
    loop {
        buf.clear();
        match reader.read_event_into(&mut buf).map_err(|e| broken(&e))? {
            event @ (Event::Start(_) | Event::Empty(_)) => {
                let empty = matches!(event, Event::Empty(_));
                let (Event::Start(start) | Event::Empty(start)) = event else { continue };
                let qname = start.name();
                let name = std::str::from_utf8(qname.as_ref()).map_err(|_| bad("a name is not text"))?;
                if depth == 0 && (seen || !roots.contains(&name)) {
                    let expected = roots.join("> or <");
                    return Err(bad(&format!("found <{}>, expected <{expected}>", name.escape_debug())));
                }
                seen = true;
                depth += 1;
                if depth > DEPTH {
                    return Err(bad("its elements are nested too deep"));
                }
                take(Node::Open(&Element { name, start: &start }))?;
                if empty {
                    depth -= 1;
                    take(Node::Close(name))?;
                }
            }
            Event::End(end) => {
                depth -= 1;
                let qname = end.name();
                let name = std::str::from_utf8(qname.as_ref()).map_err(|_| bad("a name is not text"))?;
                take(Node::Close(name))?;
            }
            Event::Text(text) => {
                let text = text.decode().map_err(|_| bad("not text"))?;
                let text = text.trim();
                if depth == 0 && !text.is_empty() {
                    return Err(bad("text outside of all elements: not XML"));
                }
                if !text.is_empty() {
                    take(Node::Text(text))?;
                }
            }
            Event::Eof if seen && depth == 0 => return Ok(()),
            Event::Eof => return Err(bad("it ends too early")),
            Event::CData(_) | Event::GeneralRef(_) => {
                return Err(bad("an entity or CDATA, which it never has"));
            }
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::DocType(_) => {}
        }
    }
}

fn broken(error: &quick_xml::Error) -> Error {
    match error {
        quick_xml::Error::Io(error) => read_error(error),
        other => bad(&other.to_string()),
    }
}
