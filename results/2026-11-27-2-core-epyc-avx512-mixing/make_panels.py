import numpy as np, csv
def write(name, rows):
    with open(name,'w',newline='') as f:
        w=csv.writer(f); w.writerow(['product','category','week','price','units']); w.writerows(rows)
def panel(name,N,T,C,units,seed,elsd=0.7,base_price=np.log(5)):
    r=np.random.default_rng(seed); rows=[]
    ca=r.normal(-2,0.5,C); tau=r.normal(0,0.3,(C,T))
    for i in range(N):
        c=i%C; a=r.normal(ca[c],elsd); lp0=r.normal(base_price,0.3)
        lp=lp0+np.where(r.random(T)<0.3,np.log(1-r.uniform(.1,.4,T)),0)+r.normal(0,.02,T)
        m=r.lognormal(np.log(units),0.5)
        y=r.poisson(m*np.exp(a*(lp-lp0)+tau[c]))
        for t in range(T): rows.append((f'P{i:05d}',f'C{c:02d}',t,f'{np.exp(lp[t]):.4f}',y[t]))
    write(name,rows)
panel('p2000x52.csv',2000,52,10,10,1)
panel('p300x30.csv',300,30,5,20,2)
panel('p60.csv',60,20,3,4,3)
# long tail
r=np.random.default_rng(7); N,T,C=2000,104,8; rows=[]
ca=r.normal(-1.8,.4,C); tau=r.normal(0,.3,(C,T))
tot=[]
for i in range(N):
    c=i%C; a=r.normal(ca[c],.8); m=r.normal(-2.2,1.8); u=r.normal(1.5,.8)
    promo=np.where(r.random(T)<.2,np.log(1-r.uniform(.1,.4,T)),0)
    lp=u+promo+r.normal(0,.02,T)
    y=r.poisson(np.exp(m+a*(lp-u)+tau[c])); tot.append(y.sum())
    for t in range(T): rows.append((f'P{i:05d}',f'C{c}',t,f'{np.exp(lp[t]):.4f}',y[t]))
print('median',np.median(tot),(np.array(tot)==0).mean())
write('longtail.csv',rows)
