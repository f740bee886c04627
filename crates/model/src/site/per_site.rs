//! One value per site.

use super::table::Site;
use serde::{Deserialize, Serialize};
use std::ops::{Index, IndexMut};

/// One value per site of [`Site::ALL`], indexed by the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PerSite<T>([T; Site::COUNT]);

impl<T> PerSite<T> {
    /// The values that `of` returns.
    pub fn from_fn(of: impl FnMut(Site) -> T) -> Self {
        PerSite(Site::ALL.map(of))
    }

    /// The same value for every site.
    pub const fn all(value: T) -> Self
    where
        T: Copy,
    {
        PerSite([value; Site::COUNT])
    }

    /// The values `chosen` of [`Site::REPARAMETERIZED`], and `other` for all other sites.
    pub fn from_reparameterized(chosen: [T; Site::REPARAMETERIZED.len()], other: T) -> Self
    where
        T: Copy,
    {
        PerSite::from_fn(|site| chosen.get(site.index()).copied().unwrap_or(other))
    }

    /// The values of [`Site::REPARAMETERIZED`], in their order.
    pub fn reparameterized(&self) -> [T; Site::REPARAMETERIZED.len()]
    where
        T: Copy,
    {
        Site::REPARAMETERIZED.map(|site| self[site])
    }

    /// Applies `of` to each value.
    pub fn map<U>(self, of: impl FnMut(T) -> U) -> PerSite<U> {
        PerSite(self.0.map(of))
    }

    /// The sites and their values, in the order of [`Site::ALL`].
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Site, &T)> {
        Site::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<Site> for PerSite<T> {
    type Output = T;

    #[inline]
    fn index(&self, site: Site) -> &T {
        &self.0[site.index()]
    }
}

impl<T> IndexMut<Site> for PerSite<T> {
    #[inline]
    fn index_mut(&mut self, site: Site) -> &mut T {
        &mut self.0[site.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_site_has_its_own_value() {
        let mut names = PerSite::from_fn(Site::name);
        assert!(names.iter().all(|(site, name)| *name == site.name()));
        names[Site::ProductA] = "another";
        assert_eq!(names[Site::ProductA], "another");
        assert_eq!(names[Site::CategoryA], "category_a");
        let chosen = [1, 2, 3, 4, 5];
        let numbers = PerSite::from_reparameterized(chosen, 0);
        assert_eq!(numbers.reparameterized(), chosen);
        assert_eq!((numbers[Site::GlobalA], numbers[Site::LogShape]), (1, 0));
        let lengths = names.map(str::len);
        assert_eq!(lengths[Site::ProductA], 7);
        assert_eq!(
            PerSite::all(2).iter().map(|(_, v)| v).sum::<i32>(),
            2 * Site::COUNT as i32
        );
    }
}
