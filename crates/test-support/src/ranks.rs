//! Panels whose rows are spread over ranks that are threads.

use infermark_backend::ConnectedRanks;
use infermark_communicator::{Communicator, ThreadRank, World, threads};
use infermark_model::{AllProducts, Labels, OwnProducts, Panel, PanelPart, PanelRanks, Shard};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// What `work` gives on each of `size` ranks, which are threads.
///
/// # Panics
/// When a rank panics, or leaves the others waiting.
pub fn on_ranks<T: Send>(size: usize, work: impl Fn(Arc<dyn PanelRanks>) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let works: Vec<_> = threads(size)
            .into_iter()
            .map(|rank| {
                let work = &work;
                let ranks: Arc<dyn PanelRanks> = Arc::new(ConnectedRanks::new(Box::new(rank), |_| ()));
                scope.spawn(move || work(ranks))
            })
            .collect();
        works.into_iter().map(|work| work.join().unwrap()).collect()
    })
}

/// One of several ranks, as a process is: each has the ranks that it is asked for from the groups of all.
#[derive(Debug)]
struct RankWorld {
    size: usize,
    ranks: Mutex<VecDeque<ThreadRank>>,
}

/// Communicators that a rank may ask for.
const COMMUNICATORS: usize = 4;

impl World for RankWorld {
    fn ranks(&self, size: usize) -> Vec<Box<dyn Communicator>> {
        assert_eq!(size, self.size);
        let mut ranks = self.ranks.lock().unwrap();
        vec![Box::new(ranks.pop_front().expect("few are asked for"))]
    }

    fn size(&self) -> Option<usize> {
        Some(self.size)
    }
}

/// What `work` gives on each of `size` ranks, which are threads in the place of processes.
///
/// # Panics
/// As [`on_ranks`].
pub fn on_worlds<T: Send>(
    size: usize,
    work: impl Fn(Arc<dyn PanelRanks>, Arc<dyn World>) -> T + Sync,
) -> Vec<T> {
    let mut worlds: Vec<VecDeque<ThreadRank>> = (0..size).map(|_| VecDeque::new()).collect();
    for _ in 0..COMMUNICATORS {
        for (world, rank) in worlds.iter_mut().zip(threads(size)) {
            world.push_back(rank);
        }
    }
    let worlds: Vec<Arc<dyn World>> = worlds
        .into_iter()
        .map(|ranks| {
            Arc::new(RankWorld {
                size,
                ranks: Mutex::new(ranks),
            }) as Arc<dyn World>
        })
        .collect();
    on_ranks(size, |ranks| {
        let world = worlds[ranks.rank()].clone();
        work(ranks, world)
    })
}

/// A panel with the rows of `source`, whose prices were written and read once more: the whole of the panels of [`spread`].
pub fn gathered(source: &Panel) -> Arc<Panel> {
    let all: Vec<u32> = (0..source.layout().products as u32).collect();
    let [p, c, t] = [source.products(), source.categories(), source.periods()].map(Labels::clone);
    Arc::new(Panel::from_parts(p, c, t, vec![part_of(source, &all)]).unwrap())
}

/// The panel of one of the ranks, with the rows of its products: those of its shard.
pub fn spread(source: &Arc<Panel>, ranks: Arc<dyn PanelRanks>) -> Panel {
    let shard = Shard::cut(source, ranks.size())
        .unwrap()
        .swap_remove(ranks.rank());
    let mut own = shard.products().to_vec();
    own.sort_unstable();
    let own_products = OwnProducts::from_parts(
        source.products().at(&own),
        source.categories().clone(),
        source.periods().clone(),
        vec![part_of(source, &own)],
    );
    let products = 0..source.layout().products;
    let all = AllProducts {
        products: source.products().clone(),
        category_of: source.category_of().to_vec(),
        rows_of: products.map(|product| source.rows_of(product) as u32).collect(),
        ranks,
    };
    own_products.unwrap().among(all, &own).unwrap()
}

fn part_of(source: &Panel, products: &[u32]) -> PanelPart {
    let layout = source.layout();
    let mut part = PanelPart::new(layout.categories, layout.periods);
    for product in products.iter().map(|product| *product as usize) {
        let category = source.category_of()[product] as usize;
        let units = &source.units()[source.row_range(product)];
        part.push_product_of(source, product, category, units).unwrap();
    }
    part
}

/// Checks that `part` has of `whole` the rows of one of `size` ranks, to the bit, and all that is known of all products.
///
/// # Panics
/// When it has not.
pub fn assert_part_of(whole: &Arc<Panel>, part: &Panel, rank: usize, size: usize) {
    assert_eq!(part.products(), whole.products());
    assert_eq!(part.categories(), whole.categories());
    assert_eq!(part.periods(), whole.periods());
    assert_eq!(part.category_of(), whole.category_of());
    assert_eq!(part.rows(), whole.rows());
    assert_eq!(part.presence(), whole.presence());
    let (sums, of_whole) = (part.sums(), whole.sums());
    assert_eq!(sums.product, of_whole.product);
    assert_eq!(sums.category_period, of_whole.category_period);
    let bits = |of: &[f64]| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&sums.product_deviation), bits(&of_whole.product_deviation));
    assert_eq!(sums.ln_factorials.to_bits(), of_whole.ln_factorials.to_bits());
    assert_eq!(bits(part.mean_log_price()), bits(whole.mean_log_price()));
    let mut own = match Shard::cut(whole, size) {
        Ok(mut shards) => shards.swap_remove(rank).products().to_vec(),
        Err(_) => whole.products_by_category(),
    };
    own.sort_unstable();
    let held: Vec<u32> = part.held_products().map(|product| product as u32).collect();
    assert_eq!(held, own, "products of rank {rank} of {size}");
    let mut rows = 0;
    for product in 0..whole.layout().products {
        assert_eq!(part.rows_of(product), whole.rows_of(product));
        if !part.holds(product) {
            continue;
        }
        let (of_part, of_whole) = (part.row_range(product), whole.row_range(product));
        rows += of_part.len();
        let single = |of: &[f32]| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for (a, b) in [
            (
                &part.deviation()[of_part.clone()],
                &whole.deviation()[of_whole.clone()],
            ),
            (
                &part.deviation_residual()[of_part.clone()],
                &whole.deviation_residual()[of_whole.clone()],
            ),
        ] {
            assert_eq!(single(a), single(b), "product {product}");
        }
        assert_eq!(part.units()[of_part], whole.units()[of_whole]);
        let periods = |panel: &Panel| {
            panel
                .product_rows(product)
                .map(|row| row.period)
                .collect::<Vec<_>>()
        };
        assert_eq!(periods(part), periods(whole));
    }
    assert_eq!(part.held_rows(), rows);
}
